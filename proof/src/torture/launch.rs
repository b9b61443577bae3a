//! Starts programs that die with this one, each in the network namespace that it belongs to.

use std::{
    env,
    fs::File,
    io::{self, Read},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::{
        prctl::set_pdeathsig,
        signal::{Signal, kill},
    },
    unistd::{Pid, getppid},
};

/// What `proof launch` becomes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The process that it must not outlive.
    #[arg(long)]
    parent: i32,
    /// A process in whose network namespace it runs.
    #[arg(long)]
    beside: Option<i32>,
    /// The program and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Becomes the program, which keeps the process id.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    die_with(options.parent)?;
    if let Some(pid) = options.beside {
        let path = format!("/proc/{pid}/ns/net");
        let namespace = File::open(&path).map_err(|error| format!("{path}: {error}"))?;
        setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|error| format!("{path}: {error}"))?;
    }
    let (program, arguments) = options
        .command
        .split_first()
        .ok_or("no program to launch")?;
    Err(format!(
        "{program}: {}",
        Command::new(program).args(arguments).exec()
    ))
}

/// Has the kernel kill this process when its parent dies.
fn die_with(parent: i32) -> Result<(), String> {
    set_pdeathsig(Signal::SIGKILL).map_err(|error| format!("prctl: {error}"))?;
    // The parent may have died before.
    if getppid() == Pid::from_raw(parent) {
        Ok(())
    } else {
        Err("whoever started this is gone".to_owned())
    }
}

/// Keeps a new network namespace until the input ends.
pub(crate) fn keep_namespace() -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("unshare: {error}"))?;
    println!("ready");
    let _ = io::stdin().read(&mut [0]);
    Ok(())
}

/// A call that launches `program`, beside a process if its namespace is another than ours.
/// To be spawned from the main thread: the kernel takes the end of a thread for that of a parent.
pub(crate) fn launch(program: &Path, beside: Option<Pid>) -> Command {
    let this = env::current_exe().expect("the program has a path");
    let mut command = Command::new(this);
    command.arg("launch");
    command.arg(format!("--parent={}", std::process::id()));
    if let Some(pid) = beside {
        command.arg(format!("--beside={pid}"));
    }
    command.arg("--").arg(program);
    command
}

/// A process that was launched. It is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Spawns what [`launch`] described.
    pub(crate) fn spawn(command: &mut Command) -> Result<Self, String> {
        let shown = format!("{command:?}");
        let child = command
            .spawn()
            .map_err(|error| format!("{shown}: {error}"))?;
        Ok(Self { child })
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("process ids are small"))
    }

    /// Sends a signal, if it has not ended.
    pub(crate) fn signal(&self, signal: Signal) {
        // Whoever ended keeps its id until it is waited for, so nobody else is hit.
        let _ = kill(self.pid(), signal);
    }

    /// Kills it, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Closes its input, which asks it to stop.
    pub(crate) fn close_input(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// How it ended, if it has.
    pub(crate) fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its first line.
    fn first_line(&mut self) -> Result<String, String> {
        let output = self.child.stdout.take().ok_or("its output is not read")?;
        let mut line = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(output), &mut line)
            .map_err(|error| error.to_string())?;
        Ok(line)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts a process that keeps a namespace of its own.
pub(crate) fn namespace() -> Result<Process, String> {
    let this = env::current_exe().map_err(|error| error.to_string())?;
    let mut command = launch(&this, None);
    command
        .arg("namespace")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut process = Process::spawn(&mut command)?;
    match process.first_line()?.trim() {
        "ready" => Ok(process),
        _ => Err("no network namespace can be made".to_owned()),
    }
}
