//! Serves a store until its own input ends, as it does when whoever started it dies.
//!
//! usage: serve [ADDRESS]; it prints the URL that it listens on.

use quorate_server::Server;
use tokio::io::AsyncReadExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1);
    let server = Server::builder()
        .listen(address.as_deref().unwrap_or("127.0.0.1:0"))
        .start()
        .await?;
    println!("{server}");
    let mut rest = Vec::new();
    tokio::io::stdin().read_to_end(&mut rest).await?;
    server.stop().await;
    Ok(())
}
