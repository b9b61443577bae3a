//! etcdctl, as somebody types it.

use std::{
    env,
    ffi::OsStr,
    fmt,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use super::{
    etcd,
    normal::Normal,
    subject::{Subject, on_both},
};

/// How long etcdctl may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// The etcdctl of each version that there is.
pub fn programs() -> Vec<PathBuf> {
    let own = env::var_os("ETCDCTL_BIN").expect("`cargo xtask test` sets ETCDCTL_BIN");
    let beside = etcd::server_35().map(|server| server.with_file_name("etcdctl"));
    let beside = beside.filter(|program| program.exists());
    [PathBuf::from(own)].into_iter().chain(beside).collect()
}

/// An etcdctl that asks one store, in a directory of its own.
pub struct Etcdctl {
    program: PathBuf,
    endpoints: String,
    directory: TempDir,
    /// The lease that was granted last.
    lease: Option<String>,
}

/// What a command told, without what differs from one store to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub line: String,
    pub stdout: String,
    pub stderr: String,
    pub code: Option<i32>,
}

impl Etcdctl {
    pub fn new(program: PathBuf, endpoints: &str) -> Self {
        Self {
            program,
            endpoints: endpoints.to_owned(),
            directory: tempfile::tempdir().unwrap(),
            lease: None,
        }
    }

    /// The lease that was granted last.
    pub fn lease(&self) -> &str {
        self.lease.as_deref().expect("one was granted")
    }

    /// Where it runs.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(&self.program);
        // It refuses to be told by its environment what an option tells as well.
        for (option, value) in [
            ("--endpoints=", &*self.endpoints),
            ("--command-timeout=", "30s"),
        ] {
            let is_told = |arg: &S| arg.as_ref().to_string_lossy().starts_with(option);
            if !args.iter().any(is_told) {
                command.arg(format!("{option}{value}"));
            }
        }
        command
            .env("ETCDCTL_API", "3")
            .env_remove("ETCDCTL_BIN") // it complains of what it does not know
            .env("ETCDCTL_DIAL_TIMEOUT", "30s") // the machine may be busy
            .current_dir(&self.directory)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs a command with that input to its end.
    pub async fn run<S: AsRef<OsStr>>(&self, args: &[S], input: &str) -> Output {
        let mut child = self.command(args).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // Who reads no input closes it.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let finished = timeout(PATIENCE, child.wait_with_output()).await;
        finished.expect("etcdctl hangs").unwrap()
    }

    /// Runs a line as a shell would: `'..'` quotes, `$lease` is the lease that was granted last, and
    /// what follows ` <<< ` is the input. Of one that begins with `~ ` no number counts.
    pub async fn told(&mut self, line: &str) -> Told {
        let (rough, typed) = match line.strip_prefix("~ ") {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        let (typed, input) = typed.split_once(" <<< ").unwrap_or((typed, ""));
        let lease = self.lease.clone();
        let expand = |text: &str| match &lease {
            Some(lease) => text.replace("$lease", lease),
            None => text.to_owned(),
        };
        let words: Vec<String> = words(typed).iter().map(|word| expand(word)).collect();
        let output = self.run(&words, &expand(input)).await;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if let Some(granted) = stdout.strip_prefix("lease ")
            && let Some((id, _)) = granted.split_once(" granted")
        {
            self.lease = Some(id.to_owned());
        }
        let normal = Normal::new(self.directory(), &self.endpoints, rough);
        Told {
            line: line.to_owned(),
            stdout: normal.of(&stdout),
            stderr: normal.of(&String::from_utf8_lossy(&output.stderr)),
            code: output.status.code(),
        }
    }

    /// Starts a command that goes on.
    pub fn start(&self, line: &str) -> Running {
        let mut command = self.command(&words(line));
        let mut child = command.spawn().unwrap();
        Running {
            stdin: child.stdin.take().unwrap(),
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            normal: Normal::new(self.directory(), &self.endpoints, false),
            child,
        }
    }
}

/// A command that goes on.
pub struct Running {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    normal: Normal,
}

impl Running {
    /// The next line that it prints; none at its end.
    pub async fn raw(&mut self) -> Option<String> {
        let line = timeout(PATIENCE, self.lines.next_line()).await;
        line.expect("etcdctl is silent").unwrap()
    }

    /// The next lines that it prints.
    pub async fn lines(&mut self, count: usize) -> String {
        let mut text = String::new();
        for _ in 0..count {
            let Some(line) = self.raw().await else { break };
            text.push_str(&line);
            text.push('\n');
        }
        self.normal.of(&text)
    }

    /// What it prints up to a line that holds one of these texts.
    pub async fn until(&mut self, marks: &[&str]) -> String {
        let mut text = String::new();
        while let Some(line) = self.raw().await {
            text.push_str(&line);
            text.push('\n');
            if marks.iter().any(|mark| line.contains(mark)) {
                break;
            }
        }
        self.normal.of(&text)
    }

    /// Types a line into it.
    pub async fn type_in(&mut self, line: &str) {
        let line = format!("{line}\n");
        self.stdin.write_all(line.as_bytes()).await.unwrap();
    }

    /// Interrupts it, as a user does by Ctrl-C.
    pub fn interrupt(&self) {
        let pid = self.child.id().expect("it goes on");
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGINT).unwrap();
    }

    /// Kills it.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits for its end, and returns what it told since.
    pub async fn end(self) -> (String, String, Option<i32>) {
        let Self {
            child,
            stdin,
            mut lines,
            normal,
        } = self;
        drop(stdin);
        let rest = async {
            let mut text = String::new();
            while let Some(line) = lines.next_line().await.unwrap() {
                text.push_str(&line);
                text.push('\n');
            }
            let output = child.wait_with_output().await.unwrap();
            (text, output)
        };
        let (text, output) = timeout(PATIENCE, rest).await.expect("etcdctl hangs");
        let errors = String::from_utf8_lossy(&output.stderr);
        (normal.of(&text), normal.of(&errors), output.status.code())
    }
}

/// Parts a line into its words, as a shell does.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for letter in line.chars() {
        match letter {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// Runs a script by each etcdctl on our server and on a real etcd, and compares all that is told.
/// Returns what the last told.
pub async fn same_by_all(script: &[&str]) -> Vec<Told> {
    same(async |_, etcdctl| {
        let mut told = Vec::new();
        for line in script {
            told.push(etcdctl.told(line).await);
        }
        told
    })
    .await
}

/// Compares what a body gathers, with each etcdctl, from our server and from a real etcd.
pub async fn same<T: fmt::Debug + PartialEq>(
    body: impl AsyncFn(&Subject, &mut Etcdctl) -> Vec<T>,
) -> Vec<T> {
    let mut last = Vec::new();
    for program in programs() {
        let (ours, etcd) = on_both(async |subject| {
            let mut etcdctl = Etcdctl::new(program.clone(), subject.url());
            body(&subject, &mut etcdctl).await
        })
        .await;
        let pairs = ours.iter().zip(&etcd);
        let differences: Vec<String> = pairs
            .filter(|(ours, etcd)| ours != etcd)
            .map(|(ours, etcd)| format!("{ours:#?}\nbut etcd: {etcd:#?}"))
            .collect();
        assert!(
            differences.is_empty(),
            "{} differences by {}:\n{}",
            differences.len(),
            program.display(),
            differences.join("\n")
        );
        assert_eq!(ours.len(), etcd.len(), "{ours:#?}\nbut etcd: {etcd:#?}");
        last = ours;
    }
    last
}
