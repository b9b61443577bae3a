//! The server that is under load.

use std::{
    env,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
};

use quorate_server::Server;

use crate::Result;

/// The process of the server, which ends when this is dropped, and when this program dies.
pub(crate) struct Process {
    child: Child,
    pub(crate) url: String,
}

/// Serves until its own input ends.
pub(crate) async fn serve() -> Result {
    let server = Server::start().await?;
    println!("{server}");
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]));
    ended.await??;
    server.stop().await;
    Ok(())
}

impl Process {
    pub(crate) fn start() -> Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let said = child.stdout.take().ok_or("the server has no output")?;
        let mut url = String::new();
        BufReader::new(said).read_line(&mut url)?;
        let url = url.trim().to_owned();
        Ok(Self { child, url })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
