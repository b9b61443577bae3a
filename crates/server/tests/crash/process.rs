//! The process that is killed.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use quorate_server::Server;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// What tells this program to be a server, and where.
pub(crate) const DIRECTORY: &str = "QUORATE_CRASH_DIRECTORY";

/// What comes before the URL on the output of the server.
const MARK: &str = "crash test server at ";

const PATIENCE: Duration = Duration::from_secs(30);

/// A server in a process of its own, which ends with this one.
pub(crate) struct Process {
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub(crate) fn spawn(directory: &Path) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("a_server_that_is_killed_loses_nothing_that_it_told")
            .env(DIRECTORY, directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, output }
    }

    /// Where it serves, once it does.
    pub(crate) async fn url(&mut self) -> String {
        let find = async {
            while let Some(line) = self.output.next_line().await.unwrap() {
                if let Some((_, url)) = line.split_once(MARK) {
                    return url.to_owned();
                }
            }
            panic!("the server ended before it served");
        };
        timeout(PATIENCE, find).await.expect("a server starts")
    }

    /// Ends it with SIGKILL.
    pub(crate) async fn kill(mut self) {
        timeout(PATIENCE, self.child.kill()).await.unwrap().unwrap();
    }
}

/// Serves a directory until the process that wants this dies.
pub(crate) async fn serve(directory: PathBuf) {
    let server = Server::builder().data_dir(directory).start().await.unwrap();
    println!("{MARK}{server}");
    let mut nothing = Vec::new();
    let _ = tokio::io::stdin().read_to_end(&mut nothing).await;
}
