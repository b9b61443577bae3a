//! Templates, and what they may ask for.

use std::{
    collections::BTreeSet,
    error::Error as _,
    fmt::Write,
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use minijinja::{
    AutoEscape, Environment, Error, UndefinedBehavior, path_loader, syntax::SyntaxConfig,
};

use super::{
    functions,
    view::{Dependency, View},
};
use crate::failure::complain;

/// A template that can be rendered.
#[derive(Debug)]
pub(crate) struct Template {
    /// Its path, as it was given.
    name: String,
    environment: Environment<'static>,
    lookups: Arc<Mutex<Lookups>>,
}

/// What the functions of a template read from, and what they asked for.
#[derive(Debug, Default)]
pub(crate) struct Lookups {
    pub(crate) view: View,
    pub(crate) used: BTreeSet<Dependency>,
    /// What it has asked for last, if that is not in the view.
    pub(crate) missing: Option<Dependency>,
    pub(crate) warnings: BTreeSet<String>,
}

/// How a rendering went.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) lookups: Lookups,
    /// The text, or a message with file and line; that is no error of the template while keys are missing.
    pub(crate) result: Result<String, String>,
}

impl Attempt {
    /// Tells people what was left out.
    pub(crate) fn tell_warnings(&self) {
        for warning in &self.lookups.warnings {
            complain(warning);
        }
    }
}

impl Template {
    /// Reads and compiles a template. Those that it includes are looked for beside it.
    ///
    /// `prefix` is what the names of keys begin with.
    pub(crate) fn read(path: &Path, prefix: &str) -> Result<Self, String> {
        let name = path.display().to_string();
        let source = fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
        let lookups = Arc::default();
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_syntax(syntax());
        environment.set_debug(true);
        environment.set_loader(path_loader(path.parent().unwrap_or(path)));
        functions::add(&mut environment, &lookups, prefix);
        environment
            .add_template_owned(name.clone(), source)
            .map_err(|error| message(&error))?;
        Ok(Self {
            name,
            environment,
            lookups,
        })
    }

    /// Renders with what is in the view.
    pub(crate) fn render(&self, view: View) -> Attempt {
        let lock = || self.lookups.lock().unwrap_or_else(PoisonError::into_inner);
        *lock() = Lookups {
            view,
            ..Lookups::default()
        };
        let template = self.environment.get_template(&self.name);
        let result = template
            .and_then(|template| template.render(()))
            .map_err(|error| message(&error));
        Attempt {
            lookups: std::mem::take(&mut *lock()),
            result,
        }
    }
}

/// A line with nothing but a `{% .. %}` on it leaves no line behind, and the last line keeps its end.
fn syntax() -> SyntaxConfig {
    SyntaxConfig::builder()
        .keep_trailing_newline(true)
        .lstrip_blocks(true)
        .trim_blocks(true)
        .build()
        .expect("the delimiters are the usual ones")
}

/// An error as `FILE:LINE: what`, with what lies beneath it.
fn message(error: &Error) -> String {
    let mut text = String::new();
    if let (Some(name), Some(line)) = (error.name(), error.line()) {
        let _ = write!(text, "{name}:{line}: ");
    }
    let _ = write!(text, "{}", error.kind());
    if let Some(detail) = error.detail() {
        let _ = write!(text, ": {detail}");
    }
    match error.source() {
        None => text,
        Some(source) => match source.downcast_ref::<Error>() {
            Some(source) => text + "; " + &message(source),
            None => format!("{text}: {source}"),
        },
    }
}
