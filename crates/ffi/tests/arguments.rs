//! Arguments that are no good, in every function: a program is made from the header that gives each of
//! them each of these, so that no function can be left out.

#![allow(clippy::unwrap_used)] // here a panic is a failed test

mod support;

use std::{collections::BTreeSet, fmt::Write, fs};

use support::{Language, Workshop, cluster, crate_file, memory, succeed, text, watched};

/// Bytes that may not be empty.
const NOT_EMPTY: [&str; 6] = ["id", "key", "name", "namespace", "service", "url"];

/// Bytes that have to be UTF-8.
const UTF8: [&str; 3] = ["id", "service", "url"];

/// A function of the header.
struct Function {
    returns: String,
    name: String,
    parameters: Vec<Parameter>,
}

struct Parameter {
    ty: String,
    name: String,
    /// Whether it may be left out: what cancels the call.
    cancels: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Sort {
    Bytes,
    Error,
    Handle,
    Instance,
    Keys,
    Number,
    Options,
    /// Of a struct that has to be freed, or of a handle.
    OutputPointer,
    OutputValue,
    /// A struct that is freed.
    Result,
}

/// The functions of the header.
fn functions() -> Vec<Function> {
    let header = text(crate_file("include/quorate.h"));
    let functions: Vec<_> = header
        .split(";\n")
        .filter_map(|statement| {
            let start = statement.rfind("*/").map_or(0, |end| end + 2);
            let words = statement[start..]
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ");
            let (head, parameters) = words.strip_suffix(')')?.split_once('(')?;
            let at = head.rfind([' ', '*'])? + 1;
            let (returns, name) = head.split_at(at);
            if !name.starts_with("quorate_") || returns.contains('=') || returns.contains("inline")
            {
                return None;
            }
            let parameters = parameters.split(", ").filter(|text| *text != "void");
            Some(Function {
                returns: returns.trim().to_owned(),
                name: name.to_owned(),
                parameters: parameters.enumerate().map(Parameter::read).collect(),
            })
        })
        .collect();
    assert!(
        functions.len() > 100,
        "the header is read wrongly: {}",
        functions.len()
    );
    functions
}

/// The members of a struct of the header that C fills in, but for the reserved ones.
fn members(of: &str) -> Vec<Parameter> {
    let header = text(crate_file("include/quorate.h"));
    let begin = format!("typedef struct {of} {{\n");
    let (_, rest) = header.split_once(&begin).expect(of);
    let (body, _) = rest.split_once("\n}").expect(of);
    let members: Vec<_> = body
        .lines()
        .filter_map(|line| line.trim().strip_suffix(';'))
        .filter(|member| !member.contains("reserved["))
        .map(|member| Parameter::read((1, member)))
        .collect();
    assert!(!members.is_empty(), "{of} is read wrongly");
    members
}

impl Parameter {
    fn read((at, text): (usize, &str)) -> Self {
        let first = at == 0;
        let at = text.rfind([' ', '*']).expect("a type and a name") + 1;
        let (ty, name) = text.split_at(at);
        Self {
            ty: ty.replace("struct ", "").trim().to_owned(),
            name: name.to_owned(),
            cancels: name == "cancel" && !first,
        }
    }

    /// The type without pointers.
    fn base(&self) -> &str {
        self.ty
            .trim_start_matches("const ")
            .trim_end_matches('*')
            .trim()
    }

    fn sort(&self, handles: &BTreeSet<String>) -> Sort {
        let stars = self.ty.matches('*').count();
        match (self.base(), stars) {
            ("quorate_bytes", 0) => Sort::Bytes,
            ("quorate_error", 2) => Sort::Error,
            ("quorate_instance", 1) => Sort::Instance,
            ("quorate_keys", 0) => Sort::Keys,
            (base, 1) if handles.contains(base) => Sort::Handle,
            (base, 1) if base.ends_with("_options") => Sort::Options,
            (base, 1) if base.starts_with("quorate_") && base != "quorate_loss" => Sort::Result,
            (_, 2) => Sort::OutputPointer,
            (_, 1) => Sort::OutputValue,
            _ => Sort::Number,
        }
    }

    /// What is good.
    fn good(&self, sort: Sort) -> String {
        match sort {
            Sort::Bytes if self.name == "url" => "quorate_str(\"mem:\")".into(),
            Sort::Bytes if self.name == "document" => "quorate_str(\"{}\")".into(),
            Sort::Bytes => "quorate_str(\"x\")".into(),
            Sort::Error => "&error".into(),
            Sort::Handle if self.cancels => "NULL".into(),
            Sort::Handle => format!("live.{}", self.field()),
            Sort::Instance => "&instance".into(),
            Sort::Keys => "keys_of(quorate_str(\"x\"))".into(),
            Sort::Number => match &*self.name {
                "timeout_ms" => "30".into(),
                "ttl_ms" => "5000".into(),
                "lease" => "12345".into(),
                _ => "0".into(),
            },
            Sort::Options | Sort::Result => "NULL".into(),
            Sort::OutputPointer | Sort::OutputValue => format!("&out_{}", self.name),
        }
    }

    /// The fixture's member of this type.
    fn field(&self) -> &str {
        self.base().trim_start_matches("quorate_")
    }

    /// What is not good, and what is expected of it: a code, -1 for anything that is documented, -2 for
    /// that but a bad handle, -3 for a bad handle or argument.
    fn bad(&self, sort: Sort) -> Vec<(String, String)> {
        let mut bad = Vec::new();
        let mut add = |value: &str, code: &str| bad.push((value.to_owned(), code.to_owned()));
        let refused = "QUORATE_INVALID_ARGUMENT";
        let any = |refuses: bool| if refuses { refused } else { "-2" };
        match sort {
            Sort::Bytes => {
                for bytes in ["null_with_length", "over_long", "endless"] {
                    add(&format!("bytes_{bytes}()"), refused);
                }
                add("bytes_empty()", any(NOT_EMPTY.contains(&&*self.name)));
                add("bytes_not_utf8()", any(UTF8.contains(&&*self.name)));
            }
            Sort::Handle => {
                let other = if self.field() == "txn" {
                    "cancel"
                } else {
                    "txn"
                };
                if !self.cancels {
                    add("NULL", "QUORATE_BAD_HANDLE");
                    add(&format!("ended.{}", self.field()), "-2");
                } else {
                    add("ended.cancel", "QUORATE_CANCELLED");
                }
                add(&format!("freed.{}", self.field()), "QUORATE_BAD_HANDLE");
                for wrong in [format!("(void *)live.{other}"), "(void *)&error".into()] {
                    let cast = format!("({} *)({wrong})", self.base());
                    add(&cast, "QUORATE_BAD_HANDLE");
                }
            }
            Sort::Instance => {
                add("NULL", refused);
                add("&instance_bad", refused);
            }
            Sort::Keys => {
                add("keys_of(bytes_null_with_length())", refused);
                add("keys_of(bytes_over_long())", refused);
                add("keys_of(bytes_empty())", refused);
                add("keys_of(bytes_not_utf8())", "-2");
                add("keys_unknown()", refused);
                add(
                    "quorate_between(quorate_str(\"b\"), bytes_endless())",
                    refused,
                );
                add(
                    "quorate_between(quorate_str(\"b\"), quorate_str(\"a\"))",
                    "-2",
                );
            }
            Sort::Number if self.name != "timeout_ms" && self.base() != "bool" => {
                for number in ["-1", "INT32_MIN", "INT32_MAX"] {
                    add(number, "-2");
                }
                if self.base() == "int64_t" {
                    add("INT64_MIN", "-2");
                    add("INT64_MAX", "-2");
                }
            }
            Sort::Options => add(&format!("&options_{}", self.field()), refused),
            Sort::OutputPointer | Sort::OutputValue => add("NULL", "-2"),
            Sort::Error | Sort::Number | Sort::Result => {}
        }
        bad
    }

    /// What is not good as a member of options or of an instance, where bytes are text.
    fn bad_member(&self, sort: Sort) -> Vec<(String, String)> {
        let (refused, answered) = ("QUORATE_INVALID_ARGUMENT", "-2");
        let bad: &[(&str, &str)] = match (sort, self.base()) {
            (Sort::Bytes, _) => &[
                ("bytes_null_with_length()", refused),
                ("bytes_over_long()", refused),
                ("bytes_endless()", refused),
                ("bytes_not_utf8()", refused),
            ],
            (Sort::Handle, _) => {
                let (base, field) = (self.base(), self.field());
                let cast =
                    |handle: &str| (format!("({base} *)({handle})"), "QUORATE_BAD_HANDLE".into());
                let wrong = ["(void *)live.txn", "(void *)&error"].map(cast);
                return [vec![cast(&format!("freed.{field}"))], wrong.to_vec()].concat();
            }
            (_, "int32_t") => &[
                ("-1", refused),
                ("INT32_MIN", refused),
                ("INT32_MAX", refused),
            ],
            (_, "int64_t") if self.name.ends_with("_ms") => &[
                ("-1", refused),
                ("INT64_MIN", refused),
                ("INT64_MAX", answered),
            ],
            (_, "int64_t") => &[
                ("-1", answered),
                ("INT64_MIN", answered),
                ("INT64_MAX", answered),
            ],
            (_, "uint32_t" | "uint64_t") => &[("UINT32_MAX", answered)],
            (_, "bool") => &[("true", answered)],
            (_, other) => panic!("nothing is known that is wrong with {other}"),
        };
        let owned = |(value, code): &(&str, &str)| ((*value).to_owned(), (*code).to_owned());
        bad.iter().map(owned).collect()
    }
}

impl Function {
    /// The cases of a function that returns a code.
    fn cases(&self, handles: &BTreeSet<String>, program: &mut String) {
        let good: Vec<_> = self
            .parameters
            .iter()
            .map(|p| p.good(p.sort(handles)))
            .collect();
        for parameter in &self.parameters {
            let (base, name) = (parameter.base(), &parameter.name);
            match parameter.sort(handles) {
                Sort::OutputPointer => writeln!(program, "  {base} *out_{name} = NULL;"),
                Sort::OutputValue => writeln!(program, "  {base} out_{name} = ({base})1;"),
                Sort::Options => writeln!(
                    program,
                    "  {base} options_{0}; memset(&options_{0}, 0, sizeof options_{0}); options_{0}.reserved[3] = 1;",
                    parameter.field()
                ),
                Sort::Instance => writeln!(
                    program,
                    "  quorate_instance instance_bad = instance; instance_bad.metadata = bytes_not_utf8();"
                ),
                _ => Ok(()),
            }
            .unwrap();
        }
        for (at, parameter) in self.parameters.iter().enumerate() {
            for (bad, expected) in parameter.bad(parameter.sort(handles)) {
                let mut arguments = good.clone();
                arguments[at].clone_from(&bad);
                self.case(
                    handles,
                    &arguments,
                    &format!("{} = {bad}", parameter.name),
                    &expected,
                    program,
                );
            }
        }
        for (at, parameter) in self.parameters.iter().enumerate() {
            let base = parameter.base();
            let given = match parameter.sort(handles) {
                Sort::Options => format!("{base} given; memset(&given, 0, sizeof given)"),
                Sort::Instance => format!("{base} given = instance"),
                _ => continue,
            };
            let mut arguments = good.clone();
            arguments[at] = "&given".to_owned();
            for member in members(base) {
                for (bad, expected) in member.bad_member(member.sort(handles)) {
                    let what = format!("{}.{} = {bad}", parameter.name, member.name);
                    writeln!(program, "  {{ {given}; given.{} = {bad};", member.name).unwrap();
                    self.case(handles, &arguments, &what, &expected, program);
                    program.push_str("  }\n");
                }
            }
        }
        // Nothing at all: no handle, no output, no error.
        let nothing: Vec<_> = self
            .parameters
            .iter()
            .map(|parameter| match parameter.sort(handles) {
                Sort::Bytes => "bytes_empty()".into(),
                Sort::Keys => "keys_of(bytes_empty())".into(),
                Sort::Number => "0".into(),
                _ => "NULL".to_owned(),
            })
            .collect();
        self.case(handles, &nothing, "nothing", "-3", program);
    }

    fn case(
        &self,
        handles: &BTreeSet<String>,
        arguments: &[String],
        what: &str,
        expected: &str,
        program: &mut String,
    ) {
        let call = format!("{}({})", self.name, arguments.join(", "));
        let what = format!("{}: {what}", self.name).replace('"', "'");
        let has_error = arguments.last().is_some_and(|last| last == "&error");
        let mut zero = "true".to_owned();
        for parameter in &self.parameters {
            let (base, name) = (parameter.base(), &parameter.name);
            let stale = match parameter.sort(handles) {
                Sort::OutputPointer => format!("({base} *)(void *)&error"),
                Sort::OutputValue => format!("({base})1"),
                _ => continue,
            };
            writeln!(program, "  out_{name} = {stale};").unwrap();
            if arguments.contains(&format!("&out_{name}")) {
                write!(zero, " && !out_{name}").unwrap();
            }
        }
        writeln!(
            program,
            "  if (expect(\"{what}\", {call}, {expected}, {has_error}) != QUORATE_OK) zeroed(\"{what}\", {zero});"
        )
        .unwrap();
        for parameter in &self.parameters {
            if parameter.sort(handles) == Sort::OutputPointer {
                // Whatever came out is freed, twice.
                let (free, name) = (free_of(parameter.base()), &parameter.name);
                writeln!(
                    program,
                    "  {free}(out_{name}); {free}(out_{name}); out_{name} = NULL;"
                )
                .unwrap();
            }
        }
    }

    /// The calls of a function that returns no code.
    fn calls(&self, handles: &BTreeSet<String>, program: &mut String) {
        let [parameter, rest @ ..] = &*self.parameters else {
            writeln!(program, "  (void){}();", self.name).unwrap();
            return;
        };
        let rest: String = rest.iter().map(|_| ", NULL").collect();
        let base = parameter.base();
        let values: Vec<String> = match parameter.sort(handles) {
            Sort::Handle => ["NULL", "freed.@", "ended.@", "live.@", "live.@"]
                .iter()
                .filter(|value| !(self.name.ends_with("_free") && value.starts_with("ended")))
                .map(|value| value.replace('@', parameter.field()))
                .chain([format!("({base} *)(void *)&error")])
                .collect(),
            Sort::Result => [
                "NULL",
                "(void *)&error",
                "(void *)kv",
                "(void *)live.client",
            ]
            .iter()
            .map(|value| format!("({base} *)({value})"))
            .filter(|value| base != "quorate_kv" || !value.contains("kv)"))
            .collect(),
            _ => ["0", "-1", "INT32_MIN", "INT32_MAX"]
                .map(str::to_owned)
                .to_vec(),
        };
        for value in values {
            writeln!(program, "  (void){}({value}{rest});", self.name).unwrap();
        }
    }
}

/// The function that frees what a type of output points to.
fn free_of(base: &str) -> String {
    format!("{base}_free")
}

/// A program that calls every function with everything that is no good.
fn program() -> String {
    let functions = functions();
    let header = text(crate_file("include/quorate.h"));
    // A type without members is a handle.
    let handles: BTreeSet<String> = header
        .lines()
        .filter_map(|line| {
            let line = line.strip_prefix("typedef struct ")?.strip_suffix(';')?;
            let (name, again) = line.split_once(' ')?;
            (name == again).then(|| name.to_owned())
        })
        .collect();
    let mut program = String::from("#include \"fixture.h\"\n\nstatic quorate_kv *kv;\n\n");
    let mut main = String::new();
    for function in &functions {
        let name = &function.name;
        writeln!(program, "static void test_{name}(void) {{").unwrap();
        if function.returns == "quorate_code" {
            function.cases(&handles, &mut program);
        } else {
            function.calls(&handles, &mut program);
        }
        program.push_str("}\n\n");
        writeln!(main, "  around(test_{name});").unwrap();
    }
    program.push_str(
        "static void around(void (*test)(void)) {\n  fixture_make(&live);\n  test();\n  fixture_free(&live);\n}\n\n\
         int main(int argc, char **argv) {\n  CHECK(argc == 2);\n  url = argv[1];\n  \
         fixture_make(&freed);\n  fixture_free(&freed);\n  fixture_make(&ended);\n  fixture_end(&ended);\n  \
         fixture_make(&live);\n  OK(quorate_get(live.client, quorate_str(\"t\"), 0, LONG, NULL, &kv, &error));\n  \
         CHECK(kv);\n  fixture_free(&live);\n",
    );
    program.push_str(&main);
    program.push_str(
        "  CHECK(same(kv->key, \"t\")); /* it was freed as nothing else */\n  quorate_kv_free(kv);\n  \
         fixture_free(&ended);\n  all_is_free();\n  return 0;\n}\n",
    );
    program
}

#[test]
fn arguments_that_are_no_good_give_the_documented_error() {
    let workshop = Workshop::open();
    let source = workshop.path("arguments.c");
    fs::write(&source, program()).unwrap();
    let program = workshop.compile(&source, Language::C99);
    succeed(watched(&program).arg(memory()));
    succeed(watched(&program).arg(cluster("arguments")));
}

/// What the header declares is what the library exports.
#[test]
fn the_library_exports_what_the_header_declares() {
    let workshop = Workshop::open();
    let symbols = succeed(
        std::process::Command::new("nm")
            .args(["-D", "--defined-only", "--format=posix"])
            .arg(workshop.library()),
    );
    let exported: BTreeSet<&str> = symbols
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with("quorate_"))
        .collect();
    let functions = functions();
    let declared: BTreeSet<&str> = functions.iter().map(|function| &*function.name).collect();
    assert_eq!(exported, declared);
    let soname = succeed(
        std::process::Command::new("readelf")
            .arg("-d")
            .arg(workshop.library()),
    );
    assert!(soname.contains("[libquorate.so.0]"), "{soname}");
}
