"""Starts and stops clusters, each with its own name, namespaces and state directory."""

import contextlib
import ctypes
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

CACHE = pathlib.Path(os.environ.get("WEIR_CACHE", pathlib.Path.home() / ".cache/weir"))
PROGRAMS = CACHE / "bin"
CLUSTERS = CACHE / "clusters"
NODE = pathlib.Path(__file__).with_name("node.py")
CGROUPS = pathlib.Path("/sys/fs/cgroup")
API_SERVER = "https://127.0.0.1:6443"
CERTIFICATE_DAYS = "30"
# Characters of what a command said before it failed.
TOLD = 1500
NEEDED = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "runc": "runc",
    "conntrack": "conntrack",
    "iptables": "iptables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "buildah": "buildah",
    "kubectl": "kubernetes-client",
}
BUILT = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "coredns",
)
# Name of the user, of its groups, and the names that a server's certificate has.
CERTIFICATES = {
    "apiserver": (
        "/CN=kube-apiserver",
        "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,"
        "DNS:kubernetes.default.svc.cluster.local,DNS:localhost,"
        "IP:127.0.0.1,IP:10.96.0.1,IP:10.244.0.1",
    ),
    "admin": ("/O=system:masters/CN=admin", "DNS:admin"),
    "controller-manager": ("/CN=system:kube-controller-manager", "DNS:controller-manager"),
    "scheduler": ("/CN=system:kube-scheduler", "DNS:scheduler"),
    "kubelet": ("/O=system:nodes/CN=system:node:node1", "DNS:node1,IP:127.0.0.1,IP:10.244.0.1"),
    "proxy": ("/CN=system:kube-proxy", "DNS:proxy"),
}


class ClusterError(Exception):
    """What is wrong with the cluster itself, and where to look."""


def missing():
    """What a cluster needs and this machine does not have, in words."""
    lacks = [
        f"{program} (Debian package {package})"
        for program, package in NEEDED.items()
        if shutil.which(program) is None
    ]
    if not pathlib.Path("/usr/lib/cni/ptp").exists():
        lacks.append("CNI plugins (Debian package containernetworking-plugins)")
    lacks += [
        f"{PROGRAMS / name} (tests/kubernetes/build-tools)"
        for name in BUILT
        if not (PROGRAMS / name).exists()
    ]
    return lacks


def die_with_parent():
    """Makes a child end when this process does, even by SIGKILL."""
    parent_death_signal = 1
    ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)


class Cluster:
    """One cluster. `start` and `stop` it, or use it by `with`."""

    def __init__(self, name):
        self.name = name
        self.state = CLUSTERS / name
        self.kubeconfig = self.state / "kubeconfig" / "admin"
        # Below which kubelet keeps the cgroups of all pods.
        self.cgroup = f"/weir-{name}"
        self._process = None

    def __enter__(self):
        self.start(bound=True)
        return self

    def __exit__(self, *_):
        self.stop()

    # Life

    def start(self, bound=False):
        """Starts the node and waits until it is Ready.

        A `bound` cluster ends with this process. What is left of a cluster of this
        name that crashed is removed; a running one is not touched.
        """
        if os.geteuid() != 0:
            raise ClusterError("a cluster needs root")
        if lacks := missing():
            raise ClusterError("a cluster needs what is not here:\n  " + "\n  ".join(lacks))
        if self.alive():
            raise ClusterError(f"the cluster {self.name} runs already: tests/kubernetes/down {self.name}")
        self.clean()
        self.state.mkdir(parents=True)
        (self.state / "owner").write_text(f"{os.getpid()} {start_time(os.getpid())}")
        try:
            self._certificates()
            self._kubeconfigs()
            self._cgroups()
            self._unshare(bound)
            self._wait_until_ready()
        except BaseException:
            self.stop(keep_log=True)
            raise

    def stop(self, keep_log=False):
        """Stops all that belongs to the cluster, and removes its files."""
        pid = self._node_pid()
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            wait_for(lambda: not self.alive(), 30, "the node's processes end")
        if self._process:
            self._process.wait(timeout=30)
            self._process = None
        if keep_log and (self.state / "log").exists():
            kept = CACHE / "cluster-log"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(self.state / "log", kept)
            print(f"the cluster's logs are kept in {kept}", file=sys.stderr)
        self.clean()

    def clean(self):
        """Removes what a node that is gone left: files and empty cgroups."""
        for controller in CGROUPS.iterdir():
            top = controller / self.cgroup.lstrip("/")
            if top.is_dir():
                wait_for(lambda top=top: remove_cgroup(top), 30, f"{top} is empty")
        if self.state.exists():
            shutil.rmtree(self.state)

    def alive(self):
        return self._node_pid() is not None

    def starting(self):
        """Whether the process that made it is still there."""
        return self._process_of("owner") is not None

    def _node_pid(self):
        """The node's process, seen from outside; none when it is not there."""
        return self._process_of("node.pid")

    def _process_of(self, file):
        try:
            pid, started = (self.state / file).read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        # Numbers of processes are used again.
        return int(pid) if started == start_time(pid) else None

    def _unshare(self, bound):
        log = self.state / "log"
        log.mkdir()
        command = [
            *("unshare", "--net", "--mount", "--pid", "--ipc", "--uts"),
            *("--fork", "--kill-child", "--mount-proc"),
            *(sys.executable, str(NODE), str(self.state), str(PROGRAMS), self.cgroup),
        ]
        with open(log / "node.log", "ab") as out:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                preexec_fn=die_with_parent if bound else None,
            )
        children = pathlib.Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")

        def child():
            if self._process.poll() is not None:
                raise ClusterError(f"the node ended: {(log / 'node.log').read_text()}")
            return children.read_text().split()

        pid = wait_for(child, 10, "unshare starts the node")[0]
        (self.state / "node.pid").write_text(f"{pid} {start_time(pid)}")

    def _wait_until_ready(self):
        def ready():
            if not self.alive():
                raise ClusterError(f"the node ended: {(self.state / 'log/node.log').read_text()}")
            answer = self.kubectl(
                *("get", "node", "node1", "-o"),
                'jsonpath={.status.conditions[?(@.type=="Ready")].status}',
                check=False,
            )
            account = self.kubectl("get", "serviceaccount", "default", check=False)
            return answer.stdout == "True" and account.returncode == 0

        wait_for(ready, 180, f"the node is Ready (see {self.state}/log)", every=0.5)
        self.kubectl("apply", "-f", "-", input=DNS)

    # Files

    def _certificates(self):
        """An authority, and a certificate for each component; ends with the state."""
        pki = self.state / "pki"
        pki.mkdir(mode=0o700)
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]

        def openssl(*arguments):
            run("openssl", *arguments, cwd=pki)

        openssl(
            *("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt"),
            *("-days", CERTIFICATE_DAYS, "-subj", "/CN=weir-test-cluster"),
        )
        for name, (subject, names) in CERTIFICATES.items():
            openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject)
            (pki / f"{name}.ext").write_text(
                f"subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n"
            )
            openssl(
                *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key"),
                *("-CAcreateserial", "-days", CERTIFICATE_DAYS),
                *("-extfile", f"{name}.ext", "-out", f"{name}.crt"),
            )
        openssl("genrsa", "-out", "accounts.key", "2048")
        openssl("rsa", "-in", "accounts.key", "-pubout", "-out", "accounts.pub")

    def _kubeconfigs(self):
        directory = self.state / "kubeconfig"
        directory.mkdir(mode=0o700)
        pki = self.state / "pki"
        for name in ("admin", "controller-manager", "scheduler", "kubelet", "proxy"):
            config = ["kubectl", "config", f"--kubeconfig={directory / name}"]
            run(
                *config,
                *("set-cluster", "test", f"--server={API_SERVER}", "--embed-certs"),
                f"--certificate-authority={pki}/ca.crt",
            )
            run(
                *config,
                *("set-credentials", name, "--embed-certs"),
                f"--client-certificate={pki}/{name}.crt",
                f"--client-key={pki}/{name}.key",
            )
            run(*config, "set-context", "test", "--cluster=test", f"--user={name}")
            run(*config, "use-context", "test")

    def _cgroups(self):
        """kubelet wants its root to be there already."""
        for controller in CGROUPS.iterdir():
            if controller.is_dir() and not controller.is_symlink():
                (controller / self.cgroup.lstrip("/")).mkdir(exist_ok=True)

    # Use

    def inside(self, *command, mounts=False):
        """The command line that runs `command` in the cluster's network.

        With `mounts` it also sees the node's files: /run/containerd, /etc/cni/net.d.
        """
        pid = self._node_pid()
        if pid is None:
            raise ClusterError(f"the cluster {self.name} does not run")
        spaces = ["--net", "--mount", "--pid"] if mounts else ["--net"]
        return ["nsenter", f"--target={pid}", *spaces, "--", *map(str, command)]

    def environment(self):
        """The environment in which kubectl and helm speak to this cluster.

        All clusters have the same address: what one of them was asked before must
        not be taken for what another has.
        """
        cache = str(self.state / "client-cache")
        return dict(
            os.environ,
            KUBECONFIG=str(self.kubeconfig),
            KUBECACHEDIR=cache,
            HELM_CACHE_HOME=cache,
            HELM_CONFIG_HOME=cache,
            HELM_DATA_HOME=cache,
        )

    def run(self, *command, mounts=False, check=True, timeout=60, **options):
        """Runs a command in the cluster's network to its end; output as text."""
        return run(*self.inside(*command, mounts=mounts), check=check, timeout=timeout, **options)

    def kubectl(self, *arguments, **options):
        return self.run("kubectl", *arguments, env=self.environment(), **options)

    def import_image(self, archive):
        """Makes an image of an archive known to the node."""
        # The archive is anywhere outside: containerd gets it by its standard input.
        with open(archive, "rb") as data:
            self.run("ctr", "-n", "k8s.io", "images", "import", "-", mounts=True, stdin=data, timeout=300)

    # Outages

    def stop_component(self, name):
        """Kills one of the node's components, which stays away until `start_component`."""
        (self.state / "hold" / name).touch()
        pid = (self.state / "pids" / name).read_text()
        self.run("kill", "-KILL", pid, mounts=True)
        gone = self.state / "pids" / name
        wait_for(lambda: not gone.exists(), 30, f"{name} ends")

    def start_component(self, name):
        (self.state / "hold" / name).unlink()
        wait_for((self.state / "pids" / name).exists, 30, f"{name} starts")


# The address that kubelet gives to pods for names leads to CoreDNS on the node.
DNS = """
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  clusterIP: 10.96.0.10
  ports:
    - {name: dns, port: 53, protocol: UDP}
    - {name: dns-tcp, port: 53, protocol: TCP}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: kube-dns-node
  namespace: kube-system
  labels: {kubernetes.io/service-name: kube-dns}
addressType: IPv4
endpoints: [{addresses: [10.244.0.1], conditions: {ready: true}}]
ports:
  - {name: dns, port: 53, protocol: UDP}
  - {name: dns-tcp, port: 53, protocol: TCP}
"""


def wait_for(condition, seconds, what, every=0.1):
    """The first true answer of `condition`; TimeoutError naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        if answer := condition():
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(every)


def run(*command, check=True, timeout=60, **options):
    """Runs a command to its end. A failure tells the command and what it said."""
    if "stdin" not in options and "input" not in options:
        options["stdin"] = subprocess.DEVNULL
    result = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout, **options
    )
    if check and result.returncode != 0:
        shown = " ".join(command)
        said = result.stderr.strip()[:TOLD]
        raise ClusterError(f"{shown}: ended with {result.returncode}: {said}")
    return result


def start_time(pid):
    """When a process started, in the kernel's ticks; none when there is none."""
    try:
        line = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # Field 22; the second one is in brackets and may hold anything.
    fields = line.rpartition(")")[2].split()
    if fields[0] in ("Z", "X"):
        return None
    return fields[19]


def remove_cgroup(top):
    """Removes a cgroup and all below. Says whether it is gone."""
    for directory, _, _ in os.walk(top, topdown=False):
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            pass
        except OSError:
            return False
    return True


def sweep():
    """Removes what crashed clusters left. Those that run or start are not touched."""
    for name in clusters():
        it = Cluster(name)
        if not it.alive() and not it.starting():
            it.clean()


def clusters():
    """The names of all clusters that run or left something."""
    if not CLUSTERS.exists():
        return []
    return sorted(path.name for path in CLUSTERS.iterdir())
