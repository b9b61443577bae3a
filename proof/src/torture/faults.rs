//! The kinds of faults, and how each is done and undone.

use std::time::Duration;

use clap::ValueEnum;
use nix::sys::signal::Signal;
use quorate::{Client, Revision};
use tokio::time::{Instant, sleep};

pub(crate) use super::effect::find_strace;
use super::{
    cluster::connect,
    effect::{Effect, is_stopped, slow, tracer},
    nemesis::Nemesis,
    network::{GROUPS, Node},
    world::World,
};
use crate::history::What;

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

    /// Does it, and undoes it; returns whether its effect was seen.
    pub(crate) async fn perform(
        self,
        world: &World,
        nemesis: &mut Nemesis,
    ) -> Result<bool, String> {
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
            Self::KillWorker => {
                let number = any_worker(world, nemesis);
                let time = nemesis.between(100, 2000);
                kill_worker(world, nemesis, number, time).await
            }
            Self::PauseWorker => {
                let number = any_worker(world, nemesis);
                let time = world.ttl.mul_f64(1.2 + 1.3 * nemesis.random.f64());
                pause_worker(world, nemesis, number, time).await
            }
            Self::Starve => starve(world, nemesis).await,
            // It is there all the time.
            Self::Clocks => Ok(true),
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
) -> Result<bool, String> {
    let first = victim(world, nemesis).await;
    let members = world.cluster.borrow().len();
    let count = if majority { members / 2 + 1 } else { 1 };
    let victims: Vec<_> = (first..first + count)
        .map(|member| member % members)
        .collect();
    let fault = nemesis.began(world, kind, format!("members {victims:?}"));
    let mut effect = Ok(());
    for &member in &victims {
        if !world.cluster.borrow_mut().kill(member) {
            effect = Err(format!("member {member} had ended by itself"));
        }
    }
    sleep(nemesis.between(300, 3000)).await;
    for &member in &victims {
        world.cluster.borrow_mut().restart(member)?;
    }
    world.recovery().await;
    Ok(fault.ended_if(world, effect))
}

async fn pause(world: &World, nemesis: &mut Nemesis) -> Result<bool, String> {
    let member = victim(world, nemesis).await;
    let fault = nemesis.began(world, Kind::Pause, format!("member {member}"));
    world.cluster.borrow().signal(member, Signal::SIGSTOP);
    sleep(nemesis.between(700, 5500)).await;
    let stopped = is_stopped(world.cluster.borrow().pid(member));
    world.cluster.borrow().signal(member, Signal::SIGCONT);
    world.recovery().await;
    Ok(fault.ended_if(world, stopped))
}

async fn cut_member(kind: Kind, world: &World, nemesis: &mut Nemesis) -> Result<bool, String> {
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
    let effect = cut(world, &cuts, nemesis.between(1000, 5000)).await?;
    world.recovery().await;
    Ok(fault.ended_if(world, effect))
}

/// Cuts ways for some time, and looks at the end whether they still were cut.
async fn cut(world: &World, ways: &[(Node, Node)], time: Duration) -> Result<Effect, String> {
    for (from, to) in ways {
        world.network.borrow_mut().cut(*from, *to)?;
    }
    sleep(time).await;
    let passes = |(from, to): &&(Node, Node)| !world.network.borrow().is_cut(*from, *to);
    let effect = match ways.iter().find(passes) {
        None => Ok(()),
        Some((from, to)) => Err(format!("the way from {from:?} to {to:?} was open")),
    };
    for (from, to) in ways {
        world.network.borrow_mut().heal(*from, *to)?;
    }
    Ok(effect)
}

async fn move_leader(world: &World, nemesis: &mut Nemesis) -> Result<bool, String> {
    let Some(leader) = world.leader().await else {
        return Ok(false);
    };
    let members = world.cluster.borrow().len();
    let other = (leader + nemesis.random.usize(1..members.max(2))) % members;
    let client = connect(&world.endpoint(other), Duration::from_secs(1)).await;
    let Ok(status) = client.status().await else {
        return Ok(false);
    };
    let fault = nemesis.began(world, Kind::MoveLeader, format!("from {leader} to {other}"));
    let id = format!("{:x}", status.header.member_id);
    let effect = world.etcdctl(leader, &["move-leader", &id]).await?;
    let now = world.leader().await;
    let effect = effect.and_then(|()| match now {
        Some(now) if now != leader => Ok(()),
        now => Err(format!("the leader is {now:?}")),
    });
    Ok(fault.ended_if(world, effect))
}

async fn disk(kind: Kind, world: &World, nemesis: &mut Nemesis) -> Result<bool, String> {
    let Some(strace) = &world.strace else {
        return Ok(false);
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
        return Ok(false);
    };
    let fault = nemesis.began(world, kind, format!("member {member}"));
    let mut slowness = slow(strace, pid, delay)?;
    sleep(Duration::from_millis(time)).await;
    let is_traced = tracer(pid) == Some(slowness.pid());
    let effect = if is_traced && !slowness.has_ended() {
        Ok(())
    } else {
        Err("strace does not trace the member".to_owned())
    };
    slowness.signal(Signal::SIGTERM);
    let patience = Instant::now() + Duration::from_secs(2);
    while !slowness.has_ended() && Instant::now() < patience {
        sleep(Duration::from_millis(10)).await;
    }
    drop(slowness);
    world.recovery().await;
    Ok(fault.ended_if(world, effect))
}

/// Compacts everything that is known, and defragments a member.
async fn compact(world: &World, nemesis: &mut Nemesis) -> Result<bool, String> {
    let member = victim(world, nemesis).await;
    let revision = world.known().await;
    let fault = nemesis.began(
        world,
        Kind::Compact,
        format!("to {revision}, member {member}"),
    );
    let client = world.client().await;
    let compacted = compact_to(world, &client, revision, nemesis.random.bool()).await;
    let defragmented = world.etcdctl(member, &["defrag"]).await?;
    Ok(fault.ended_if(world, compacted.and(defragmented)))
}

/// Compacts, and takes note of it before: whether it is done or not, it may be.
async fn compact_to(world: &World, client: &Client, revision: Revision, physical: bool) -> Effect {
    let what = What::Compacted {
        revision: revision.0,
    };
    world.log.borrow_mut().note(what);
    let compacted = client.compact(revision, physical).await;
    compacted.map_err(|error| format!("compaction: {error}"))
}

/// Fills the database until writes are refused, and makes room again after a while.
async fn fill(world: &World, nemesis: &mut Nemesis) -> Result<bool, String> {
    let fault = nemesis.began(world, Kind::NoSpace, "members".to_owned());
    let client = world.client().await;
    let patience = Instant::now() + Duration::from_secs(20);
    let mut effect = Err("the database did not get full".to_owned());
    for number in 0.. {
        let put = client
            .put(format!("fill/{number}"), vec![b'x'; 1 << 20])
            .await;
        if put.is_err() && client.alarms().await.is_ok_and(|alarms| !alarms.is_empty()) {
            effect = Ok(());
            break;
        }
        if Instant::now() > patience {
            break;
        }
    }
    if effect.is_ok() {
        sleep(nemesis.between(1500, 6000)).await;
    }
    let has_room = make_room(world, &client).await?;
    if !has_room {
        effect = Err("the database stays full".to_owned());
    }
    Ok(fault.ended_if(world, effect))
}

/// Whether writes work again. Each step may meet a fault of its own making.
async fn make_room(world: &World, client: &Client) -> Result<bool, String> {
    let members = world.cluster.borrow().len();
    for _ in 0..10 {
        let _ = client.delete(quorate::KeyRange::prefix("fill/")).await;
        let _ = compact_to(world, client, world.known().await, true).await;
        for member in 0..members {
            let _ = world.etcdctl(member, &["defrag"]).await?;
        }
        let _ = world.etcdctl(0, &["alarm", "disarm"]).await?;
        if client.put("fill/done", "1").await.is_ok() {
            return Ok(true);
        }
        sleep(Duration::from_millis(300)).await;
    }
    Ok(false)
}

async fn cut_clients(kind: Kind, world: &World, nemesis: &mut Nemesis) -> Result<bool, String> {
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
    let effect = cut(world, &cuts, time).await?;
    Ok(fault.ended_if(world, effect))
}

/// Kills a process, and starts another one in its place after some time.
pub(super) async fn kill_worker(
    world: &World,
    nemesis: &mut Nemesis,
    number: usize,
    time: Duration,
) -> Result<bool, String> {
    let name = world.workers.borrow().name(number);
    let fault = nemesis.began(world, Kind::KillWorker, name);
    let effect = world.workers.borrow_mut().kill(number);
    sleep(time).await;
    let network = world.network.borrow();
    world
        .workers
        .borrow_mut()
        .restart(number, &network, &mut nemesis.random)?;
    Ok(fault.ended_if(world, effect))
}

/// Stops a process for some time.
pub(super) async fn pause_worker(
    world: &World,
    nemesis: &mut Nemesis,
    number: usize,
    time: Duration,
) -> Result<bool, String> {
    let name = world.workers.borrow().name(number);
    let fault = nemesis.began(world, Kind::PauseWorker, name);
    world.workers.borrow().signal(number, Signal::SIGSTOP);
    sleep(time).await;
    let stopped = is_stopped(world.workers.borrow().pid(number));
    world.workers.borrow().signal(number, Signal::SIGCONT);
    Ok(fault.ended_if(world, stopped))
}

/// Lets a process run for a few milliseconds out of a hundred.
async fn starve(world: &World, nemesis: &mut Nemesis) -> Result<bool, String> {
    let number = any_worker(world, nemesis);
    let name = world.workers.borrow().name(number);
    let fault = nemesis.began(world, Kind::Starve, name);
    let end = Instant::now() + world.ttl.mul_f64(1.5);
    let (mut looks, mut stops) = (0, 0);
    while Instant::now() < end {
        world.workers.borrow().signal(number, Signal::SIGSTOP);
        sleep(nemesis.between(80, 300)).await;
        // Who waits for a processor has not seen the signal yet, and is starved by that.
        looks += 1;
        stops += usize::from(is_stopped(world.workers.borrow().pid(number)).is_ok());
        world.workers.borrow().signal(number, Signal::SIGCONT);
        sleep(Duration::from_millis(5)).await;
    }
    let effect = if 2 * stops > looks {
        Ok(())
    } else {
        Err(format!("it was stopped {stops} of {looks} times"))
    };
    Ok(fault.ended_if(world, effect))
}

fn any_worker(world: &World, nemesis: &mut Nemesis) -> usize {
    nemesis.random.usize(..world.workers.borrow().len())
}
