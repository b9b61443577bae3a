//! Keys and values.

use crate::{
    Result,
    bench::{Bench, TASKS, value},
    figures::{Figures, Span},
};

/// 300 operations for each of the tasks.
const CONCURRENT: usize = TASKS * 300;

pub(crate) async fn put_seq(bench: Bench) -> Result<Figures> {
    put(bench, 2000, 1).await
}

pub(crate) async fn put_conc(bench: Bench) -> Result<Figures> {
    put(bench, CONCURRENT, TASKS).await
}

async fn put(bench: Bench, count: usize, tasks: usize) -> Result<Figures> {
    bench.warm().await?;
    let span = Span::begin()?;
    let took = bench.fill(count, tasks, "k/", value(64)).await?;
    span.end(took.len(), took)
}

/// Linearizable reads.
pub(crate) async fn get_conc(bench: Bench) -> Result<Figures> {
    const KEYS: usize = 1000;

    bench.fill(KEYS, TASKS, "k/", value(64)).await?;
    let span = Span::begin()?;
    let get = |bench: Bench, number: usize| async move {
        let key = bench.key(format!("k/{}", number % KEYS));
        match bench.client.get(key).await? {
            Some(_) => Ok(()),
            None => Err("a key is not there".into()),
        }
    };
    let took = bench.each(CONCURRENT, TASKS, get).await?;
    span.end(took.len(), took)
}
