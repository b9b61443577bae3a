//! The kinds of faults, and how each is done and undone.

use std::{path::Path, process::Stdio, time::Duration};

use clap::ValueEnum;
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use super::{
    cluster::connect,
    launch::{Process, launch},
    nemesis::Nemesis,
    network::{GROUPS, Node},
    world::World,
};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    // Of members.
    /// A member is killed, and starts again on its data.
    Kill,
    /// A member is stopped, and goes on.
    Pause,
    /// A member is cut off from everybody.
    Partition,
    /// A member is cut off from the others, not from clients.
    Peers,
    /// Nothing that a member sends to the others arrives.
    OneWay,
    /// The leader hands over.
    MoveLeader,
    /// A majority is killed at once.
    NoQuorum,
    /// Each sync of a member's disk takes long.
    SlowDisk,
    /// The leader's disk stalls.
    StalledDisk,
    /// History is compacted, and a member defragmented.
    Compact,
    /// The database is full.
    NoSpace,
    // Of clients.
    /// A group of clients is cut off from all members.
    CutClients,
    /// Nothing that members send to a group of clients arrives.
    MuteMembers,
    /// A process is killed, and another one started.
    KillWorker,
    /// A process is stopped for longer than its session lives.
    PauseWorker,
    /// A process gets hardly any time.
    Starve,
    /// The clocks of processes run fast or slow, from their start on.
    Clocks,
}

impl Kind {
    pub(crate) fn name(self) -> String {
        let value = self.to_possible_value().expect("no kind is skipped");
        value.get_name().to_owned()
    }

    /// Whether members suffer it, rather than clients.
    pub(crate) fn is_of_members(self) -> bool {
        (self as usize) < Self::CutClients as usize
    }

    /// Does it, and undoes it.
    pub(crate) async fn perform(self, world: &World, nemesis: &mut Nemesis) -> Result<(), String> {
        match self {
            Self::Kill => kill(self, world, nemesis, false).await,
            Self::NoQuorum => kill(self, world, nemesis, true).await,
            Self::Pause => pause(world, nemesis).await,
            Self::Partition | Self::Peers | Self::OneWay => cut_member(self, world, nemesis).await,
            Self::MoveLeader => move_leader(world, nemesis).await,
            Self::SlowDisk | Self::StalledDisk => disk(self, world, nemesis).await,
            Self::Compact => compact(world, nemesis).await,
            Self::NoSpace => fill(world, nemesis).await,
            Self::CutClients | Self::MuteMembers => cut_clients(self, world, nemesis).await,
            Self::KillWorker => kill_worker(world, nemesis).await,
            Self::PauseWorker => pause_worker(world, nemesis).await,
            Self::Starve => starve(world, nemesis).await,
            // It is there all the time.
            Self::Clocks => Ok(()),
        }
    }
}

/// A member: the leader as often as not.
async fn victim(world: &World, nemesis: &mut Nemesis) -> usize {
    let any = nemesis.random.usize(..world.cluster.borrow().len());
    if nemesis.random.bool() {
        world.leader().await.unwrap_or(any)
    } else {
        any
    }
}

async fn kill(
    kind: Kind,
    world: &World,
    nemesis: &mut Nemesis,
    majority: bool,
) -> Result<(), String> {
    let first = victim(world, nemesis).await;
    let members = world.cluster.borrow().len();
    let count = if majority { members / 2 + 1 } else { 1 };
    let victims: Vec<_> = (first..first + count)
        .map(|member| member % members)
        .collect();
    let fault = nemesis.began(world, kind, format!("members {victims:?}"));
    for &member in &victims {
        world.cluster.borrow_mut().kill(member);
    }
    sleep(nemesis.between(300, 3000)).await;
    for &member in &victims {
        world.cluster.borrow_mut().restart(member)?;
    }
    world.recovery().await;
    fault.ended(world);
    Ok(())
}

async fn pause(world: &World, nemesis: &mut Nemesis) -> Result<(), String> {
    let member = victim(world, nemesis).await;
    let fault = nemesis.began(world, Kind::Pause, format!("member {member}"));
    world.cluster.borrow().signal(member, Signal::SIGSTOP);
    sleep(nemesis.between(700, 5500)).await;
    world.cluster.borrow().signal(member, Signal::SIGCONT);
    world.recovery().await;
    fault.ended(world);
    Ok(())
}

async fn cut_member(kind: Kind, world: &World, nemesis: &mut Nemesis) -> Result<(), String> {
    let member = victim(world, nemesis).await;
    let this = Node::Member(member);
    let others = (0..world.cluster.borrow().len()).filter(|other| *other != member);
    let mut cuts: Vec<_> = others.map(|other| (this, Node::Member(other))).collect();
    if kind == Kind::Partition {
        cuts.extend((0..GROUPS).map(|group| (this, Node::Clients(group))));
    }
    if kind != Kind::OneWay {
        let back: Vec<_> = cuts.iter().map(|(from, to)| (*to, *from)).collect();
        cuts.extend(back);
    }
    let fault = nemesis.began(world, kind, format!("member {member}"));
    cut(world, &cuts, nemesis.between(1000, 5000)).await?;
    world.recovery().await;
    fault.ended(world);
    Ok(())
}

/// Cuts ways for some time.
async fn cut(world: &World, ways: &[(Node, Node)], time: Duration) -> Result<(), String> {
    for (from, to) in ways {
        world.network.borrow_mut().cut(*from, *to)?;
    }
    sleep(time).await;
    for (from, to) in ways {
        world.network.borrow_mut().heal(*from, *to)?;
    }
    Ok(())
}

async fn move_leader(world: &World, nemesis: &mut Nemesis) -> Result<(), String> {
    let Some(leader) = world.leader().await else {
        return Ok(());
    };
    let members = world.cluster.borrow().len();
    let other = (leader + nemesis.random.usize(1..members.max(2))) % members;
    let client = connect(&world.endpoint(other), Duration::from_secs(1)).await;
    let Ok(status) = client.status().await else {
        return Ok(());
    };
    let fault = nemesis.began(world, Kind::MoveLeader, format!("from {leader} to {other}"));
    let id = format!("{:x}", status.header.member_id);
    world.etcdctl(leader, &["move-leader", &id]).await?;
    fault.ended(world);
    Ok(())
}

async fn disk(kind: Kind, world: &World, nemesis: &mut Nemesis) -> Result<(), String> {
    let Some(strace) = &world.strace else {
        return Ok(());
    };
    let (member, delay, time) = if kind == Kind::StalledDisk {
        let any = victim(world, nemesis).await;
        (world.leader().await.unwrap_or(any), 6_000, 6_500)
    } else {
        (
            victim(world, nemesis).await,
            nemesis.random.u64(50..400),
            3_000,
        )
    };
    let Some(pid) = world.cluster.borrow().pid(member) else {
        return Ok(());
    };
    let fault = nemesis.began(world, kind, format!("member {member}"));
    let mut command = launch(strace, None);
    command
        .args(["-f", "-qq", "-e", "trace=fdatasync"])
        .arg(format!("--inject=fdatasync:delay_enter={}", delay * 1000))
        .args(["-o", "/dev/null", "-p", &pid.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut slowness = Process::spawn(&mut command)?;
    sleep(Duration::from_millis(time)).await;
    slowness.signal(Signal::SIGTERM);
    let patience = Instant::now() + Duration::from_secs(2);
    while !slowness.has_ended() && Instant::now() < patience {
        sleep(Duration::from_millis(10)).await;
    }
    drop(slowness);
    world.recovery().await;
    fault.ended(world);
    Ok(())
}

/// Compacts everything that is known, and defragments a member.
async fn compact(world: &World, nemesis: &mut Nemesis) -> Result<(), String> {
    let member = victim(world, nemesis).await;
    let revision = world.known().await;
    let fault = nemesis.began(
        world,
        Kind::Compact,
        format!("to {revision}, member {member}"),
    );
    let client = world.client().await;
    let _ = client.compact(revision, nemesis.random.bool()).await;
    world.etcdctl(member, &["defrag"]).await?;
    fault.ended(world);
    Ok(())
}

/// Fills the database until writes are refused, and makes room again after a while.
async fn fill(world: &World, nemesis: &mut Nemesis) -> Result<(), String> {
    let fault = nemesis.began(world, Kind::NoSpace, "members".to_owned());
    let client = world.client().await;
    let patience = Instant::now() + Duration::from_secs(10);
    for number in 0.. {
        let put = client
            .put(format!("fill/{number}"), vec![b'x'; 1 << 20])
            .await;
        let is_full = put.is_err() && client.alarms().await.is_ok_and(|alarms| !alarms.is_empty());
        if is_full || Instant::now() > patience {
            break;
        }
    }
    sleep(nemesis.between(1500, 6000)).await;
    let members = world.cluster.borrow().len();
    // Each step may meet a fault of its own making; writes work again when all are done.
    for _ in 0..10 {
        let _ = client.delete(quorate::KeyRange::prefix("fill/")).await;
        let _ = client.compact(world.known().await, true).await;
        for member in 0..members {
            world.etcdctl(member, &["defrag"]).await?;
        }
        world.etcdctl(0, &["alarm", "disarm"]).await?;
        if client.put("fill/done", "1").await.is_ok() {
            break;
        }
        sleep(Duration::from_millis(300)).await;
    }
    fault.ended(world);
    Ok(())
}

async fn cut_clients(kind: Kind, world: &World, nemesis: &mut Nemesis) -> Result<(), String> {
    let number = nemesis.random.usize(..world.workers.borrow().len());
    let group = world.workers.borrow().group(number);
    let clients = Node::Clients(group);
    let members = (0..world.cluster.borrow().len()).map(Node::Member);
    let mut cuts: Vec<_> = members.map(|member| (member, clients)).collect();
    if kind == Kind::CutClients {
        let back: Vec<_> = cuts.iter().map(|(from, to)| (*to, *from)).collect();
        cuts.extend(back);
    }
    let fault = nemesis.began(world, kind, format!("group {group}"));
    let time = world.ttl.mul_f64(0.4 + 2.0 * nemesis.random.f64());
    cut(world, &cuts, time).await?;
    fault.ended(world);
    Ok(())
}

async fn kill_worker(world: &World, nemesis: &mut Nemesis) -> Result<(), String> {
    let number = nemesis.random.usize(..world.workers.borrow().len());
    let name = world.workers.borrow().name(number);
    let fault = nemesis.began(world, Kind::KillWorker, name);
    world.workers.borrow_mut().kill(number);
    sleep(nemesis.between(100, 2000)).await;
    let network = world.network.borrow();
    world
        .workers
        .borrow_mut()
        .restart(number, &network, &mut nemesis.random)?;
    fault.ended(world);
    Ok(())
}

async fn pause_worker(world: &World, nemesis: &mut Nemesis) -> Result<(), String> {
    let number = nemesis.random.usize(..world.workers.borrow().len());
    let name = world.workers.borrow().name(number);
    let fault = nemesis.began(world, Kind::PauseWorker, name);
    world.workers.borrow().signal(number, Signal::SIGSTOP);
    sleep(world.ttl.mul_f64(1.2 + 1.3 * nemesis.random.f64())).await;
    world.workers.borrow().signal(number, Signal::SIGCONT);
    fault.ended(world);
    Ok(())
}

/// Lets a process run for a few milliseconds out of a hundred.
async fn starve(world: &World, nemesis: &mut Nemesis) -> Result<(), String> {
    let number = nemesis.random.usize(..world.workers.borrow().len());
    let name = world.workers.borrow().name(number);
    let fault = nemesis.began(world, Kind::Starve, name);
    let end = Instant::now() + world.ttl.mul_f64(1.5);
    while Instant::now() < end {
        world.workers.borrow().signal(number, Signal::SIGSTOP);
        sleep(nemesis.between(80, 300)).await;
        world.workers.borrow().signal(number, Signal::SIGCONT);
        sleep(Duration::from_millis(5)).await;
    }
    fault.ended(world);
    Ok(())
}

/// Finds the program that slows system calls down, if it works here.
pub(crate) fn find_strace() -> Option<std::path::PathBuf> {
    let strace = Path::new("strace");
    let status = launch(strace, None)
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync"])
        .args(["--inject=fdatasync:delay_enter=1", "true"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status
        .is_ok_and(|status| status.success())
        .then(|| strace.to_owned())
}
