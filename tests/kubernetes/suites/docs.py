"""Every command of the pages about Kubernetes, as it stands there, in its order."""

import os
import pathlib
import re
import signal
import subprocess
import tempfile

from harness import cluster, images, mesh

PAGES = ("kubernetes.md", "upgrade.md", "uninstall.md")
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# Of all pages together, in seconds.
BOUND = 900

# The images are this checkout's, which is all that differs from what a user types.
PRELUDE = """
set -eu -o pipefail
helm() {
  case $1 in
    install) command helm "$@" %s ;;
    *) command helm "$@" ;;
  esac
}
"""
IMAGES = {"image": "weir", "services.image": "weir", "router.image": "weir-router", "cni.image": "weir-cni"}


def commands():
    """One script of all blocks; each says where it stands before it runs."""
    tags = " ".join(f"--set-string {value}.tag={images.tag(name)}" for value, name in IMAGES.items())
    parts = [PRELUDE % tags]
    for page in PAGES:
        text = (images.REPOSITORY / "docs/src" / page).read_text()
        for block in BLOCK.finditer(text):
            line = text.count("\n", 0, block.start()) + 2
            parts.append(f"echo '== {page}:{line}'\n{block[1]}")
    return "\n".join(parts)


def setup(kube):
    mesh.uninstall(kube)
    kube.delete("namespace", mesh.NAMESPACE)
    kube.delete("namespace", "shop")
    kube.apply_definitions()


def teardown(kube):
    mesh.uninstall(kube)
    for name in ("shop", "weir-services", mesh.NAMESPACE):
        kube.delete("namespace", name)


def test_every_command_works(kube):
    with tempfile.TemporaryDirectory() as directory:
        script = pathlib.Path(directory) / "script"
        script.write_text(commands())
        programs = pathlib.Path(directory) / "bin"
        programs.mkdir()
        (programs / "weir").symlink_to(images.program("weir").resolve())
        (programs / "helm").symlink_to(cluster.PROGRAMS / "helm")
        environment = dict(os.environ, PATH=f"{programs}:{os.environ['PATH']}")
        # Port-forwards run on when the script has ended: a file and no pipe, which they
        # would keep open, and a session of its own, which ends with all that is in it.
        log = pathlib.Path(directory) / "log"
        process = subprocess.Popen(
            ["bash", script],
            cwd=images.REPOSITORY,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=cluster.die_with_parent,
        )
        try:
            process.wait(timeout=BOUND)
        except subprocess.TimeoutExpired:
            pass
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        tail = "\n".join(log.read_text().splitlines()[-25:])
    assert process.returncode == 0, f"ended with {process.returncode}:\n{tail}"


def test_nothing_is_left(kube):
    """The last page said how."""
    left = mesh.left_over(kube)
    assert left == [], left
    assert not kube.exists("namespace", mesh.NAMESPACE)
    kube.wait(
        lambda: not kube.kubectl("get", "configmaps", "--all-namespaces", "--output=name",
                                 "--field-selector=metadata.name=weir-trust-bundle").strip(),
        "no roots in any namespace",
    )
