//! A machine of its own for a client: its clock may be fast or slow, and it may stop for a while.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::future::BoxFuture;
use quorate::{Moment, Runtime};
use tokio::time::Instant;

/// What a client runs on. Clones are the same machine.
#[derive(Clone, Debug)]
pub struct Machine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    origin: Instant,
    /// How fast its clock runs; the store's runs at 1.
    rate: f64,
    random: Mutex<fastrand::Rng>,
    stopped: Mutex<Option<Vec<Waker>>>,
    tasks: AtomicUsize,
}

impl Machine {
    pub fn new(rate: f64, seed: u64) -> Self {
        Self(Arc::new(Inner {
            origin: Instant::now(),
            rate,
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            stopped: Mutex::new(None),
            tasks: AtomicUsize::new(0),
        }))
    }

    /// How many tasks run on it.
    pub fn tasks(&self) -> usize {
        self.0.tasks.load(Ordering::SeqCst)
    }

    /// Stops everything that runs on it; its clock goes on.
    pub fn stop(&self) {
        self.0.stopped.lock().unwrap().get_or_insert_default();
    }

    /// Lets everything go on.
    pub fn go_on(&self) {
        let wakers = self.0.stopped.lock().unwrap().take();
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// A future that stops when the machine does.
    pub fn run<F: Future>(&self, future: F) -> Running<F> {
        self.0.tasks.fetch_add(1, Ordering::SeqCst);
        Running {
            future: Box::pin(future),
            machine: self.clone(),
        }
    }
}

impl Runtime for Machine {
    fn now(&self) -> Moment {
        Moment::since_origin(self.0.origin.elapsed().mul_f64(self.0.rate))
    }

    fn sleep_until(&self, moment: Moment) -> BoxFuture<'static, ()> {
        let machine = self.clone();
        Box::pin(async move {
            loop {
                let left = moment.since(machine.now());
                if left.is_zero() {
                    return;
                }
                let left = left.div_f64(machine.0.rate);
                tokio::time::sleep(left.max(Duration::from_micros(1))).await;
            }
        })
    }

    fn random(&self) -> u64 {
        self.0.random.lock().unwrap().u64(..)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(self.run(task));
    }
}

/// See [`Machine::run`].
pub struct Running<F> {
    future: Pin<Box<F>>,
    machine: Machine,
}

impl<F: Future> Future for Running<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if let Some(stopped) = &mut *self.machine.0.stopped.lock().unwrap() {
            stopped.push(cx.waker().clone());
            return Poll::Pending;
        }
        self.future.as_mut().poll(cx)
    }
}

impl<F> Drop for Running<F> {
    fn drop(&mut self) {
        self.machine.0.tasks.fetch_sub(1, Ordering::SeqCst);
    }
}
