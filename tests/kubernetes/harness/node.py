"""The node: runs as process 1 of the cluster's own namespaces.

`unshare` starts it with new network, mount, PID, IPC and UTS namespaces. All that
Kubernetes leaves behind (processes, mounts, links, rules) belongs to one of them,
so it is gone when this process is, however it ends. Files are below the state
directory, which appears here as /mnt/state, and the programs as /mnt/bin.

Outside, cluster.py has made certificates and kubeconfigs before.
"""

import json
import os
import pathlib
import signal
import ssl
import subprocess
import sys
import time
import urllib.request

STATE = pathlib.Path("/mnt/state")
BIN = pathlib.Path("/mnt/bin")
# Debian's places of the CNI plugins.
PLUGINS = pathlib.Path("/usr/lib/cni")
NODE_ADDRESS = "10.244.0.1"
DNS_ADDRESS = "10.96.0.10"
API_READY = "https://127.0.0.1:6443/readyz"
ETCD = "http://127.0.0.1:2379"
# A component that ends so often within a minute is not started again.
RESTARTS_A_MINUTE = 5


def run(*command):
    subprocess.run(command, check=True)


def mount_all(state, programs):
    """Gives the node file systems of its own where Kubernetes writes."""
    run("mount", "--make-rprivate", "/")
    # Pods may ask for propagation of mounts, within the node.
    run("mount", "--make-rshared", "/")
    run("mount", "-t", "tmpfs", "tmpfs", "/mnt")
    STATE.mkdir()
    BIN.mkdir()
    run("mount", "--bind", state, str(STATE))
    run("mount", "--bind", programs, str(BIN))
    for name in ("var", "etc", "etc-work"):
        (STATE / name).mkdir(exist_ok=True)
    etc = f"lowerdir=/etc,upperdir={STATE}/etc,workdir={STATE}/etc-work"
    run("mount", "-t", "overlay", "-o", etc, "overlay", "/etc")
    run("mount", "--bind", str(STATE / "var"), "/var")
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    run("mount", "-t", "tmpfs", "tmpfs", "/opt")
    os.symlink("/run", "/var/run")
    # The usual places, so that what a chart has as default works here.
    for directory in (
        "/etc/cni/net.d",
        "/opt/cni/bin",
        "/var/log/pods",
        "/var/log/containers",
        "/var/lib/kubelet",
        "/var/lib/etcd",
        "/run/netns",
        "/run/containerd",
    ):
        os.makedirs(directory, exist_ok=True)
    for plugin in PLUGINS.iterdir():
        run("cp", str(plugin), "/opt/cni/bin/")


def write(path, text):
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def connect():
    """The node's link and routes. Service addresses need some default route."""
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "node0", "type", "bridge")
    run("ip", "address", "add", f"{NODE_ADDRESS}/32", "dev", "node0")
    run("ip", "link", "set", "node0", "up")
    run("ip", "route", "add", "default", "dev", "node0", "src", NODE_ADDRESS)
    for setting in ("net.ipv4.ip_forward=1", "net.ipv4.conf.all.route_localnet=1"):
        run("sysctl", "-qw", setting)
    # A veth pair and a route for each pod: all traffic between pods is routed by
    # the node, so that kube-proxy sees both ways of a connection.
    network = {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": "10.244.1.0/24"}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
    write("/etc/cni/net.d/10-pods.conflist", json.dumps(network, indent=2))
    write("/etc/resolv.conf", f"nameserver {DNS_ADDRESS}\n")
    write("/etc/hosts", "127.0.0.1 localhost\n")


CONTAINERD = """version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/local/pause:1"
  # Without CAP_SYS_RESOURCE no score may be lowered.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
"""

KUBELET = """apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: {cgroup}
failSwapOn: false
failCgroupV1: false
maxPods: 200
# How fast a changed ConfigMap reaches its pods.
syncFrequency: 10s
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: /mnt/state/pki/ca.crt}}
authorization: {{mode: Webhook}}
tlsCertFile: /mnt/state/pki/kubelet.crt
tlsPrivateKeyFile: /mnt/state/pki/kubelet.key
clusterDNS: ["{dns}"]
clusterDomain: cluster.local
resolvConf: /mnt/state/resolv.conf
localStorageCapacityIsolation: false
evictionHard: {{memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}}
"""

PROXY = """apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: /mnt/state/kubeconfig/proxy}
mode: iptables
hostnameOverride: node1
clusterCIDR: 10.244.0.0/16
# These settings belong to the machine, not to a namespace.
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
"""

COREDNS = f"""cluster.local in-addr.arpa {{
  bind {NODE_ADDRESS}
  errors
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig /mnt/state/kubeconfig/admin
    ttl 5
  }}
}}
. {{
  bind {NODE_ADDRESS}
  errors
  # There is nothing beyond: an answer at once is better than a time-out.
  template ANY ANY {{
    rcode NXDOMAIN
  }}
}}
"""


def api_server():
    pki = STATE / "pki"
    return [
        BIN / "kube-apiserver",
        f"--etcd-servers={ETCD}",
        "--bind-address=0.0.0.0",
        "--secure-port=6443",
        f"--advertise-address={NODE_ADDRESS}",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged",
        f"--client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--service-account-key-file={pki}/accounts.pub",
        f"--service-account-signing-key-file={pki}/accounts.key",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--kubelet-client-certificate={pki}/admin.crt",
        f"--kubelet-client-key={pki}/admin.key",
        # Names of nodes are in no DNS here.
        "--kubelet-preferred-address-types=InternalIP",
    ]


def components():
    """What runs on the node: name to command line."""
    pki = STATE / "pki"
    config = STATE / "kubeconfig"
    return {
        "etcd": [
            "etcd",
            "--data-dir=/var/lib/etcd",
            f"--listen-client-urls={ETCD}",
            f"--advertise-client-urls={ETCD}",
            "--listen-peer-urls=http://127.0.0.1:2380",
            # A test's cluster has nothing to lose.
            "--unsafe-no-fsync",
        ],
        "kube-apiserver": api_server(),
        "kube-controller-manager": [
            BIN / "kube-controller-manager",
            f"--kubeconfig={config}/controller-manager",
            f"--service-account-private-key-file={pki}/accounts.key",
            f"--root-ca-file={pki}/ca.crt",
            f"--cluster-signing-cert-file={pki}/ca.crt",
            f"--cluster-signing-key-file={pki}/ca.key",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--allocate-node-cidrs=false",
        ],
        "kube-scheduler": [
            BIN / "kube-scheduler",
            f"--kubeconfig={config}/scheduler",
            "--leader-elect=false",
        ],
        "containerd": ["containerd", "-c", STATE / "containerd.toml"],
        "kubelet": [
            BIN / "kubelet",
            f"--config={STATE}/kubelet.yaml",
            f"--kubeconfig={config}/kubelet",
            "--hostname-override=node1",
            f"--node-ip={NODE_ADDRESS}",
            "--node-labels=topology.kubernetes.io/region=test,topology.kubernetes.io/zone=test-a",
        ],
        "kube-proxy": [BIN / "kube-proxy", f"--config={STATE}/proxy.yaml"],
        "coredns": [BIN / "coredns", "-conf", STATE / "Corefile"],
    }


class Supervisor:
    """Starts the components, and again when one ends.

    A component is left alone while /mnt/state/hold/NAME exists: so a test stops
    one, and starts it again.
    """

    def __init__(self, commands):
        self.commands = commands
        self.running = {}
        self.starts = {name: [] for name in commands}
        for name in ("hold", "pids", "log"):
            (STATE / name).mkdir(exist_ok=True)

    def start(self, name):
        now = time.monotonic()
        recent = [at for at in self.starts[name] if now - at < 60]
        if len(recent) >= RESTARTS_A_MINUTE:
            raise SystemExit(f"{name} ends again and again: see log/{name}.log")
        self.starts[name] = [*recent, now]
        with open(STATE / "log" / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                [str(part) for part in self.commands[name]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
        self.running[process.pid] = name
        (STATE / "pids" / name).write_text(str(process.pid))

    def reap(self):
        """Takes note of all that ended; process 1 also gets the orphans of others."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            name = self.running.pop(pid, None)
            if name:
                code = os.waitstatus_to_exitcode(status)
                print(f"{name} ended with {code}", flush=True)
                (STATE / "pids" / name).unlink(missing_ok=True)

    def wait_for_api(self, seconds=90):
        """What asks the API server at its start ends when nobody answers."""
        # The answer to anyone is enough here: nothing is told, nothing believed.
        context = ssl._create_unverified_context()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.reap()
            try:
                with urllib.request.urlopen(API_READY, context=context, timeout=5):
                    return
            except OSError:
                time.sleep(0.1)
        raise SystemExit("the API server is not ready: see log/kube-apiserver.log")

    def keep(self):
        for name in ("etcd", "kube-apiserver"):
            self.start(name)
        self.wait_for_api()
        while True:
            self.reap()
            for name in self.commands:
                held = (STATE / "hold" / name).exists()
                if name not in self.running.values() and not held:
                    self.start(name)
            time.sleep(0.1)


def main(state, programs, cgroup):
    # What it does not handle, process 1 does not get.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    run("hostname", "node1")
    mount_all(state, programs)
    connect()
    write(STATE / "containerd.toml", CONTAINERD)
    write(STATE / "kubelet.yaml", KUBELET.format(cgroup=cgroup, dns=DNS_ADDRESS))
    write(STATE / "proxy.yaml", PROXY)
    write(STATE / "Corefile", COREDNS)
    write(STATE / "resolv.conf", f"nameserver {NODE_ADDRESS}\n")
    Supervisor(components()).keep()


if __name__ == "__main__":
    main(*sys.argv[1:])
