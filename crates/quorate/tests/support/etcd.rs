//! Real etcd servers on loopback, each test's own or one shared by the whole test program.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{LazyLock, Mutex},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use super::certificates::Certificates;

/// How long a cluster may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// The endpoint of one etcd that every test may use, under keys of its own. Nothing may stop it,
/// compact it or change its users. `cargo xtask test` starts one for all test programs and names it
/// in `QUORATE_TEST_ETCD`; without it each test program starts its own.
pub fn shared() -> String {
    env::var("QUORATE_TEST_ETCD").unwrap_or_else(|_| own())
}

/// The endpoint of one etcd that only this test program uses, for tests that look at all leases or count
/// on every revision.
pub fn own() -> String {
    static OWN: LazyLock<Cluster> = LazyLock::new(lasting);
    OWN.endpoint(0)
}

/// The endpoint of another etcd, for tests that may only run alone, as those that compact: they take
/// turns.
pub fn shared_alone() -> String {
    static ALONE: LazyLock<Cluster> = LazyLock::new(lasting);
    ALONE.endpoint(0)
}

/// A cluster for a static, which is never dropped: the server's keeper removes the directory instead.
fn lasting() -> Cluster {
    let mut cluster = Cluster::builder().start();
    let Some(directory) = cluster.directory.take() else {
        unreachable!("a cluster starts with a directory");
    };
    let path = directory.keep();
    cluster.members.lock().unwrap()[0].tidy(&path);
    cluster
}

/// The etcd that tests run against.
pub fn server() -> PathBuf {
    env::var_os("ETCD_BIN")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            panic!(
                "this test needs a real etcd: run it by `cargo xtask test`, which finds one, \
             or set ETCD_BIN to its program"
            )
        })
}

/// The etcd 3.5 to compare with, where `ETCD_BIN_35` names one.
pub fn server_35() -> Option<PathBuf> {
    env::var_os("ETCD_BIN_35").map(PathBuf::from)
}

/// How a cluster shall be.
#[derive(Default)]
pub struct Builder {
    members: usize,
    fast: bool,
    program: Option<PathBuf>,
    flags: Vec<String>,
    certificates: Option<Certificates>,
    client_certificates: bool,
}

impl Builder {
    /// How many members it has; one if this is not called.
    pub fn members(self, members: usize) -> Self {
        Self { members, ..self }
    }

    /// Elects leaders within about 0.5 s rather than 1 s, and grants leases from 1 s on.
    pub fn fast(self) -> Self {
        Self { fast: true, ..self }
    }

    /// Runs another etcd than the one of `ETCD_BIN`.
    pub fn program(self, program: PathBuf) -> Self {
        Self {
            program: Some(program),
            ..self
        }
    }

    /// Adds a flag to every member.
    pub fn flag(mut self, flag: impl Into<String>) -> Self {
        self.flags.push(flag.into());
        self
    }

    /// Serves clients over TLS; with `client_certificates` only those that have a certificate.
    pub fn tls(self, certificates: Certificates, client_certificates: bool) -> Self {
        Self {
            certificates: Some(certificates),
            client_certificates,
            ..self
        }
    }

    /// Starts the cluster and waits until every member is healthy.
    pub fn start(self) -> Cluster {
        let program = self.program.clone().unwrap_or_else(server);
        let version = version(&program);
        // A port can be taken between its choice and the server's start; then all is done again.
        for _ in 0..5 {
            if let Some(cluster) = self.attempt(&program, version) {
                return cluster;
            }
        }
        panic!("etcd does not start: {}", program.display());
    }

    fn attempt(&self, program: &Path, version: (u32, u32)) -> Option<Cluster> {
        let directory = tempfile::Builder::new()
            .prefix("etcd-")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .unwrap();
        if let Some(certificates) = &self.certificates {
            certificates.write(directory.path());
        }
        let scheme = if self.certificates.is_some() {
            "https"
        } else {
            "http"
        };
        let count = self.members.max(1);
        let ports = free_ports(3 * count);
        let peer = |index: usize| format!("http://127.0.0.1:{}", ports[3 * index + 1]);
        let initial: Vec<_> = (0..count).map(|i| format!("m{i}={}", peer(i))).collect();
        let members = (0..count)
            .map(|index| {
                let client = format!("{scheme}://127.0.0.1:{}", ports[3 * index]);
                let metrics = SocketAddr::from(([127, 0, 0, 1], ports[3 * index + 2]));
                let mut flags = vec![
                    format!("--name=m{index}"),
                    format!(
                        "--data-dir={}",
                        directory.path().join(format!("m{index}")).display()
                    ),
                    format!("--listen-client-urls={client}"),
                    format!("--advertise-client-urls={client}"),
                    format!("--listen-peer-urls={}", peer(index)),
                    format!("--initial-advertise-peer-urls={}", peer(index)),
                    format!("--initial-cluster={}", initial.join(",")),
                    // Without TLS whoever answers here need not be a client.
                    format!("--listen-metrics-urls=http://{metrics}"),
                    "--logger=zap".to_owned(),
                ];
                if self.fast {
                    flags.push("--heartbeat-interval=50".to_owned());
                    flags.push("--election-timeout=500".to_owned());
                }
                if version >= (3, 5) {
                    flags.push("--unsafe-no-fsync".to_owned());
                }
                if self.certificates.is_some() {
                    let file = |name: &str| directory.path().join(name).display().to_string();
                    flags.push(format!("--cert-file={}", file("server.pem")));
                    flags.push(format!("--key-file={}", file("server.key")));
                    // With authorities to trust etcd demands certificates, even unless told to.
                    if self.client_certificates {
                        flags.push("--client-cert-auth".to_owned());
                        flags.push(format!("--trusted-ca-file={}", file("ca.pem")));
                    }
                }
                flags.extend(self.flags.iter().cloned());
                Member {
                    endpoint: client,
                    metrics,
                    log: directory.path().join(format!("m{index}.log")),
                    program: program.to_owned(),
                    flags,
                    process: None,
                }
            })
            .collect();
        let cluster = Cluster {
            members: Mutex::new(members),
            directory: Some(directory),
        };
        (0..count).for_each(|index| cluster.spawn(index));
        cluster.await_start().then_some(cluster)
    }
}

/// A running cluster. Its servers are killed and its data removed when it is dropped, and when the
/// test program dies in whatever way.
pub struct Cluster {
    members: Mutex<Vec<Member>>,
    directory: Option<TempDir>,
}

struct Member {
    endpoint: String,
    metrics: SocketAddr,
    log: PathBuf,
    program: PathBuf,
    flags: Vec<String>,
    process: Option<Process>,
}

/// A server and the shell that keeps it: once the shell's input ends, as it does when this program
/// dies, the shell kills the server. SIGKILL also ends a server that is stopped.
struct Process {
    keeper: Child,
    pid: Pid,
}

const KEEPER: &str = r#"
log=$1; shift
"$@" </dev/null >>"$log" 2>&1 &
echo $!
read -r tidy
kill -9 $! 2>/dev/null
wait
if [ -n "$tidy" ]; then rm -rf "$tidy"; fi
"#;

impl Cluster {
    /// A cluster of one member, unless told otherwise.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Where clients reach each member.
    pub fn endpoints(&self) -> Vec<String> {
        self.members
            .lock()
            .unwrap()
            .iter()
            .map(|member| member.endpoint.clone())
            .collect()
    }

    /// Where clients reach one member.
    pub fn endpoint(&self, index: usize) -> String {
        self.members.lock().unwrap()[index].endpoint.clone()
    }

    /// Kills a member at once; it keeps its data.
    pub fn kill(&self, index: usize) {
        self.members.lock().unwrap()[index].kill();
    }

    /// Stops a member: it keeps its connections and answers nothing.
    pub fn stop(&self, index: usize) {
        self.signal(index, Signal::SIGSTOP);
    }

    /// Lets a stopped member go on.
    pub fn cont(&self, index: usize) {
        self.signal(index, Signal::SIGCONT);
    }

    /// Starts a killed member on its data, without waiting until it is healthy.
    pub fn restart(&self, index: usize) {
        self.kill(index);
        self.spawn(index);
    }

    /// Kills a member and removes its data.
    pub fn wipe(&self, index: usize) {
        self.kill(index);
        let directory = self.directory.as_ref().unwrap().path();
        fs::remove_dir_all(directory.join(format!("m{index}"))).unwrap();
    }

    /// Whether a member says that it is healthy, which takes a leader.
    pub fn is_healthy(&self, index: usize) -> bool {
        self.ask(index, "/health")
            .is_some_and(|answer| answer.contains("true"))
    }

    /// The member that leads, if one does.
    pub fn leader(&self) -> Option<usize> {
        (0..self.endpoints().len()).find(|&index| {
            let metrics = self.ask(index, "/metrics");
            metrics.is_some_and(|text| text.contains("\netcd_server_is_leader 1"))
        })
    }

    /// Runs etcdctl against every member, and returns what it prints.
    pub fn etcdctl(&self, arguments: &[&str]) -> String {
        let program = env::var_os("ETCDCTL_BIN").expect("`cargo xtask test` sets ETCDCTL_BIN");
        let mut command = Command::new(program);
        let endpoints = self.endpoints();
        command
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", endpoints.join(",")));
        if let Some(directory) = &self.directory
            && endpoints[0].starts_with("https")
        {
            let file = |name: &str| directory.path().join(name).display().to_string();
            command.arg(format!("--cacert={}", file("ca.pem")));
            command.arg(format!("--cert={}", file("client.pem")));
            command.arg(format!("--key={}", file("client.key")));
        }
        let output = command.args(arguments).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "etcdctl {arguments:?}: {told}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn spawn(&self, index: usize) {
        self.members.lock().unwrap()[index].spawn();
    }

    fn signal(&self, index: usize, signal: Signal) {
        let members = self.members.lock().unwrap();
        let process = members[index].process.as_ref().expect("the member runs");
        kill(process.pid, signal).unwrap();
    }

    /// Waits until every member is healthy; false if one ends, as when its port is taken.
    fn await_start(&self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let count = self.endpoints().len();
        while !(0..count).all(|index| self.is_healthy(index)) {
            if self.members.lock().unwrap().iter().any(Member::has_ended) {
                return false;
            }
            let logs = || {
                let members = self.members.lock().unwrap();
                let read = |member: &Member| fs::read_to_string(&member.log).unwrap_or_default();
                members.iter().map(read).collect::<String>()
            };
            assert!(
                Instant::now() < deadline,
                "etcd is not healthy in time:\n{}",
                logs()
            );
            thread::sleep(Duration::from_millis(20));
        }
        true
    }

    /// Asks one member over plain HTTP.
    fn ask(&self, index: usize, path: &str) -> Option<String> {
        let address = self.members.lock().unwrap()[index].metrics;
        let patience = Duration::from_millis(500);
        let mut stream = TcpStream::connect_timeout(&address, patience).ok()?;
        stream.set_read_timeout(Some(patience)).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.members
            .lock()
            .unwrap()
            .iter_mut()
            .for_each(Member::kill);
    }
}

impl Member {
    fn spawn(&mut self) {
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(&self.log)
            .arg(&self.program)
            .args(&self.flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(keeper.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let pid = Pid::from_raw(line.trim().parse().unwrap());
        self.process = Some(Process { keeper, pid });
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.keeper.stdin.take());
            process.keeper.wait().unwrap();
        }
    }

    /// Whether the server ended by itself: signal 0 asks whether it exists, and a zombie has no memory.
    fn has_ended(&self) -> bool {
        let Some(process) = &self.process else {
            return true;
        };
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid));
        stat.map_or_else(
            |_| kill(process.pid, None).is_err(),
            |stat| stat.contains(") Z "),
        )
    }

    /// Has the keeper remove the data when it ends.
    fn tidy(&mut self, directory: &Path) {
        let process = self.process.as_mut().expect("the member runs");
        let input = process.keeper.stdin.as_mut().expect("the keeper reads");
        write!(input, "{}", directory.display()).unwrap();
    }
}

/// The major and minor version of an etcd.
pub fn version(program: &Path) -> (u32, u32) {
    let output = Command::new(program).arg("--version").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = text
        .split_once("etcd Version: ")
        .expect("etcd tells its version")
        .1;
    let mut parts = number
        .split('.')
        .map(|part| part.parse().unwrap_or_default());
    (parts.next().unwrap(), parts.next().unwrap())
}

/// Ports that were free a moment ago.
fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<_> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    held.iter()
        .map(|listener| listener.local_addr().unwrap().port())
        .collect()
}
