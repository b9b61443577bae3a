//! The network between clients and members, which can be cut: namespaces where that is permitted, else
//! proxies between clients and members.

use std::{collections::BTreeMap, env, fs, path::Path, process::Stdio};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::{Pid, getegid, geteuid},
};

use super::{
    launch::{Process, launch, namespace},
    proxy::{Flow, Proxy},
};

/// How many groups of clients there are, each of which can be cut off by itself.
pub(crate) const GROUPS: usize = 3;

/// Who sends and receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Node {
    Member(usize),
    /// A group of clients.
    Clients(usize),
}

/// A network, in which ways can be cut.
pub(crate) struct Network {
    kind: Kind,
    /// How many faults cut each way that is cut.
    cuts: BTreeMap<(Node, Node), usize>,
}

enum Kind {
    Namespaces(Namespaces),
    Proxies(Proxies),
}

impl Network {
    /// A network of namespaces if this process may make them, else one of proxies. To be called before
    /// there are other threads.
    pub(crate) fn new(members: usize, proxies: bool) -> Result<Self, String> {
        let kind = if proxies || !are_namespaces_possible() {
            Kind::Proxies(Proxies::default())
        } else {
            private()?;
            Kind::Namespaces(Namespaces::new(members)?)
        };
        Ok(Self {
            kind,
            cuts: BTreeMap::new(),
        })
    }

    /// What kind of network it is.
    pub(crate) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Namespaces(_) => "namespaces",
            Kind::Proxies(_) => "proxies between clients and members",
        }
    }

    /// The address at which a member listens; `None` for loopback and a port that is free.
    pub(crate) fn address(&self, member: usize) -> Option<String> {
        match self.kind {
            Kind::Namespaces(_) => Some(address(Node::Member(member))),
            Kind::Proxies(_) => None,
        }
    }

    /// A process in whose namespace a node is, if that is not this process's own.
    pub(crate) fn keeper(&self, node: Node) -> Option<Pid> {
        match &self.kind {
            Kind::Namespaces(namespaces) => Some(namespaces.keeper(node)),
            Kind::Proxies(_) => None,
        }
    }

    /// Where a group of clients reaches the members, whose own endpoints are given.
    pub(crate) async fn endpoints(
        &mut self,
        group: usize,
        members: &[String],
    ) -> Result<Vec<String>, String> {
        match &mut self.kind {
            Kind::Namespaces(_) => Ok(members.to_vec()),
            Kind::Proxies(proxies) => proxies.endpoints(group, members).await,
        }
    }

    /// Whether members can be cut off from each other.
    pub(crate) fn cuts_members(&self) -> bool {
        matches!(self.kind, Kind::Namespaces(_))
    }

    /// Lets nothing pass from one node to another.
    pub(crate) fn cut(&mut self, from: Node, to: Node) -> Result<(), String> {
        let faults = self.cuts.entry((from, to)).or_default();
        *faults += 1;
        if *faults > 1 {
            return Ok(());
        }
        match &self.kind {
            Kind::Namespaces(namespaces) => namespaces.cut(from, to),
            Kind::Proxies(proxies) => {
                proxies.set(from, to, false);
                Ok(())
            }
        }
    }

    /// Whether nothing passes from one node to another, as the kernel or the proxy has it.
    pub(crate) fn is_cut(&self, from: Node, to: Node) -> bool {
        match &self.kind {
            Kind::Namespaces(namespaces) => namespaces.is_cut(from, to),
            Kind::Proxies(proxies) => proxies.is_cut(from, to),
        }
    }

    /// Undoes a [`cut`](Network::cut): everything passes again unless another fault cuts this way.
    pub(crate) fn heal(&mut self, from: Node, to: Node) -> Result<(), String> {
        if let Some(faults) = self.cuts.get_mut(&(from, to)).filter(|faults| **faults > 1) {
            *faults -= 1;
            return Ok(());
        }
        self.cuts.remove(&(from, to));
        match &self.kind {
            Kind::Namespaces(namespaces) => namespaces.heal(from, to),
            Kind::Proxies(proxies) => {
                proxies.set(from, to, true);
                Ok(())
            }
        }
    }
}

/// A namespace for each node, on one bridge. They have no names, so they are gone with their processes.
pub(crate) struct Namespaces {
    members: Vec<Process>,
    clients: Vec<Process>,
}

impl Namespaces {
    fn new(members: usize) -> Result<Self, String> {
        ip("link set lo up", None)?;
        ip("link add hub type bridge", None)?;
        ip(&format!("address add {HUB}/24 dev hub"), None)?;
        ip("link set hub up", None)?;
        let keep = |count| {
            (0..count)
                .map(|_| namespace())
                .collect::<Result<Vec<_>, _>>()
        };
        let namespaces = Self {
            members: keep(members)?,
            clients: keep(GROUPS)?,
        };
        let nodes = (0..members).map(Node::Member);
        for node in nodes.chain((0..GROUPS).map(Node::Clients)) {
            let keeper = namespaces.keeper(node);
            let port = match node {
                Node::Member(index) => format!("member{index}"),
                Node::Clients(index) => format!("clients{index}"),
            };
            let pair = format!("link add {port} type veth peer name wire netns {keeper}");
            ip(&pair, None)?;
            ip(&format!("link set {port} master hub up"), None)?;
            ip("link set lo up", Some(keeper))?;
            let address = address(node);
            ip(&format!("address add {address}/24 dev wire"), Some(keeper))?;
            ip("link set wire up", Some(keeper))?;
        }
        Ok(namespaces)
    }

    fn keeper(&self, node: Node) -> Pid {
        match node {
            Node::Member(index) => self.members[index].pid(),
            Node::Clients(index) => self.clients[index].pid(),
        }
    }

    /// Sends what goes one way to a card that nobody has: it is lost in silence, as by a broken switch.
    fn cut(&self, from: Node, to: Node) -> Result<(), String> {
        let to = address(to);
        let nowhere = format!("neighbour replace {to} lladdr {NOBODY} nud permanent dev wire");
        ip(&nowhere, Some(self.keeper(from))).map(drop)
    }

    fn heal(&self, from: Node, to: Node) -> Result<(), String> {
        let to = address(to);
        let gone = format!("neighbour del {to} dev wire");
        ip(&gone, Some(self.keeper(from))).map(drop)
    }

    fn is_cut(&self, from: Node, to: Node) -> bool {
        let told = format!("neighbour show to {} dev wire", address(to));
        ip(&told, Some(self.keeper(from))).is_ok_and(|told| told.contains(NOBODY))
    }
}

const HUB: &str = "10.77.0.254";
const NOBODY: &str = "02:00:00:00:de:ad";

fn address(node: Node) -> String {
    match node {
        Node::Member(index) => format!("10.77.0.{}", 1 + index),
        Node::Clients(index) => format!("10.77.0.{}", 101 + index),
    }
}

/// Tries it in a process of its own, since there is no way back.
fn are_namespaces_possible() -> bool {
    let Ok(this) = env::current_exe() else {
        return false;
    };
    let mut trial = launch(&this, None);
    let status = trial.arg("try-namespaces").stdin(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Makes a network of namespaces, which is gone with this process.
pub(crate) fn try_namespaces() -> Result<(), String> {
    private()?;
    let namespaces = Namespaces::new(1)?;
    namespaces.cut(Node::Member(0), Node::Clients(0))?;
    namespaces.heal(Node::Member(0), Node::Clients(0))
}

/// Moves this process into a network of its own, in which it may do everything.
fn private() -> Result<(), String> {
    let told = |error: nix::Error| error.to_string();
    if unshare(CloneFlags::CLONE_NEWNET).is_ok() {
        return Ok(());
    }
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).map_err(told)?;
    let write = |file: &str, text: String| {
        fs::write(format!("/proc/self/{file}"), text).map_err(|error| format!("{file}: {error}"))
    };
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("0 {user} 1"))?;
    write("gid_map", format!("0 {group} 1"))
}

/// Calls `ip`, in the namespace of a process if one is given, and returns what it prints.
fn ip(arguments: &str, beside: Option<Pid>) -> Result<String, String> {
    let output = launch(Path::new("ip"), beside)
        .args(arguments.split(' '))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(format!("ip {arguments}: {}", why.trim()))
}

/// A proxy for each group of clients and member. What passes between members cannot be cut.
#[derive(Default)]
pub(crate) struct Proxies {
    groups: Vec<Vec<Proxy>>,
}

impl Proxies {
    async fn endpoints(&mut self, group: usize, members: &[String]) -> Result<Vec<String>, String> {
        while self.groups.len() <= group {
            let mut proxies = Vec::new();
            for member in members {
                proxies.push(Proxy::before(member).await?);
            }
            self.groups.push(proxies);
        }
        Ok(self.groups[group].iter().map(Proxy::endpoint).collect())
    }

    fn set(&self, from: Node, to: Node, passes: bool) {
        if let Some((proxy, flow)) = self.between(from, to) {
            proxy.set(flow, passes);
        }
    }

    fn is_cut(&self, from: Node, to: Node) -> bool {
        let between = self.between(from, to);
        between.is_some_and(|(proxy, flow)| !proxy.passes(flow))
    }

    fn between(&self, from: Node, to: Node) -> Option<(&Proxy, Flow)> {
        let (group, member, flow) = match (from, to) {
            (Node::Clients(group), Node::Member(member)) => (group, member, Flow::Requests),
            (Node::Member(member), Node::Clients(group)) => (group, member, Flow::Answers),
            _ => return None,
        };
        Some((self.groups.get(group)?.get(member)?, flow))
    }
}
