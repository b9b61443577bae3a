//! The program that starts a server and ends when that serves.

use std::{
    ffi::OsStr,
    io,
    path::Path,
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    net::unix::pipe::Receiver,
    time::{sleep, timeout},
};

/// How a server came to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Started {
    Now,
    /// Another process has the store: it serves, is about to, or ends.
    ByAnother,
}

/// The program at work. The server is no child of ours, and goes on whatever becomes of us.
///
/// Dropping it ends the program, though not a server that it has started.
#[derive(Debug)]
pub(super) struct Starter(Child);

impl Starter {
    pub(super) fn spawn(program: &Path, arguments: &[&OsStr]) -> io::Result<Self> {
        Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map(Self)
    }

    /// Waits until it is done, or tells why it failed.
    pub(super) async fn done(mut self) -> Result<Started, String> {
        let status = loop {
            match self.0.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) => sleep(LOOK_INTERVAL).await,
                // This process lets the system wait for its children, so nobody knows.
                Err(_) => return Ok(Started::ByAnother),
            }
        };
        match status.code() {
            Some(0) => Ok(Started::Now),
            Some(TAKEN) => Ok(Started::ByAnother),
            _ => Err(self.told(status).await),
        }
    }

    /// What it complained of, or else how it ended.
    async fn told(&mut self, status: ExitStatus) -> String {
        let mut text = Vec::new();
        if let Some(stderr) = self.0.stderr.take() {
            // Whom it left behind may hold its standard error open.
            let _ = timeout(LOOK_INTERVAL * 20, read(stderr, &mut text)).await;
        }
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().map(|line| {
            let line = line.trim();
            line.strip_prefix("quorate: ").unwrap_or(line)
        });
        let lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
        match lines[..] {
            [] => status.to_string(),
            _ => lines.join("; "),
        }
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        // It fails if it has ended, which is as well.
        let _ = self.0.kill();
        let _ = self.0.try_wait();
    }
}

/// Reads the beginning of what was written to a pipe.
async fn read(stderr: ChildStderr, text: &mut Vec<u8>) {
    let Ok(pipe) = Receiver::from_owned_fd(stderr.into()) else {
        return;
    };
    let mut piece = [0; 1024];
    while text.len() < LONGEST_TEXT && pipe.readable().await.is_ok() {
        match pipe.try_read(&mut piece) {
            Ok(0) => return,
            Ok(length) => text.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// The exit status if another process has the store.
const TAKEN: i32 = 75;

const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// The most that is read of a complaint, in bytes.
const LONGEST_TEXT: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(script: &str) -> Result<Started, String> {
        let arguments = ["-c", script].map(OsStr::new);
        let starter = Starter::spawn(Path::new("/bin/sh"), &arguments).expect("there is a shell");
        starter.done().await
    }

    #[tokio::test]
    async fn the_exit_status_tells_how_the_server_came_to_be_there() {
        assert_eq!(run("exit 0").await, Ok(Started::Now));
        assert_eq!(run("echo taken >&2; exit 75").await, Ok(Started::ByAnother));
    }

    #[tokio::test]
    async fn what_it_complains_of_is_told() {
        let complaint = run("echo 'quorate: no space' >&2; echo; exit 74").await;
        assert_eq!(complaint, Err("no space".to_owned()));
        assert_eq!(run("exit 3").await, Err("exit status: 3".to_owned()));
    }

    #[tokio::test]
    async fn a_descendant_that_keeps_its_standard_error_holds_nobody_up() {
        let begun = tokio::time::Instant::now();
        let complaint = run("echo full >&2; sleep 2 & exit 74").await;
        assert_eq!(complaint, Err("full".to_owned()));
        assert!(begun.elapsed() < Duration::from_secs(1));
    }
}
