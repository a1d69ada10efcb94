"""Builds the images that the tests run, and brings them into a cluster.

No registry is asked. Archives are kept by what is in them, so that an image is
built again only when its program changed.
"""

import hashlib
import os
import pathlib
import shutil
import tempfile

from . import cluster

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
ARCHIVES = cluster.CACHE / "images"
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", cluster.CACHE / "target"))
# Of the suite's manifests. Its echo server is built unchanged from its module; the
# advanced one has no module, our application stands in for it.
CONFORMANCE = "registry.k8s.io/gateway-api"


class Image:
    """One image: its names, its program, and how it is put together."""

    def __init__(self, names, program, containerfile=None, links=(), entrypoint=None, user="65532:65532"):
        self.names = names
        self.program = program
        self.containerfile = containerfile
        # Further names of the program within the image.
        self.links = links
        self.entrypoint = entrypoint
        self.user = user

    def digest(self):
        parts = [repr((self.names, self.links, self.entrypoint, self.user)).encode(), self.program.read_bytes()]
        if self.containerfile:
            parts.append(self.containerfile.read_bytes())
        return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]

    def archive(self):
        """The image as a file; built when it is not there."""
        label = self.names[0].rpartition("/")[2].replace(":", "-")
        archive = ARCHIVES / f"{label}-{self.digest()}.tar"
        if not archive.exists():
            ARCHIVES.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="weir-image-") as work:
                self._build(pathlib.Path(work), archive)
            for older in ARCHIVES.glob(f"{label}-*.tar"):
                if older != archive:
                    older.unlink(missing_ok=True)
        return archive

    def _build(self, work, archive):
        root = work / "root"
        cluster.run(str(REPOSITORY / "images/rootfs"), str(self.program), str(root))
        for link in self.links:
            (root / link.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            (root / link.lstrip("/")).symlink_to(f"/{self.program.name}")
        finished = work / "image.tar"
        buildah = Buildah(work)
        name = self.names[0]
        if self.containerfile:
            buildah.run("bud", "--quiet", "--file", str(self.containerfile), "--tag", name, str(root))
            buildah.run("push", "--quiet", name, f"oci-archive:{finished}:{name}")
        else:
            container = buildah.run("from", "scratch").strip()
            buildah.run("copy", "--quiet", container, str(root), "/")
            entrypoint = ",".join(f'"{word}"' for word in self.entrypoint)
            buildah.run(
                *("config", "--entrypoint", f"[{entrypoint}]", "--user", self.user),
                # By which `exec` finds a program that is named without its place.
                *("--env", "PATH=/usr/bin:/", container),
            )
            buildah.run("commit", "--quiet", container, f"oci-archive:{finished}:{name}")
        shutil.move(finished, archive)


class Buildah:
    """buildah with storage of its own, which goes with the directory."""

    def __init__(self, work):
        self.options = [
            *("--root", str(work / "storage"), "--runroot", str(work / "run")),
            *("--storage-driver", "vfs"),
        ]
        self.environment = dict(os.environ, BUILDAH_ISOLATION="chroot")

    def run(self, *arguments):
        command = ["buildah", *self.options, *arguments]
        return cluster.run(*command, timeout=300, env=self.environment).stdout


def built(name):
    """A program of this repository; the small profile's before the usual one's."""
    for profile in ("dist", "release", "debug"):
        if name == "weir" and profile == "dist":
            continue
        path = TARGET / profile / name
        if path.exists():
            return path
    return None


def program(name):
    """One of Weir's programs, or none when it is not built."""
    path = os.environ.get(name.upper().replace("-", "_") + "_PROGRAM")
    return pathlib.Path(path) if path else built(name)


def ours(name, path):
    """One of Weir's images."""
    return Image([f"docker.io/weir/{name}:dev"], path, REPOSITORY / "images" / f"{name}.Containerfile")


def tag(name):
    """The tag that one of Weir's images has by its content, beside `dev`.

    Pods that name it are made anew when the program changed.
    """
    path = program(name)
    return ours(name, path).digest() if path else "dev"


def images():
    """All images, and the names of those whose program is not built."""
    found, absent = [], []
    for name in ("weir", "weir-router", "weir-cni"):
        path = program(name)
        if path is None:
            absent.append(name)
            continue
        found.append(ours(name, path))
    programs = cluster.PROGRAMS
    found += [
        Image(["docker.io/local/pause:1"], programs / "pause", entrypoint=["/pause"]),
        Image(
            ["docker.io/local/app:1", f"{CONFORMANCE}/echo-advanced:v1.5.1"],
            programs / "app",
            links=["/usr/bin/client", "/usr/bin/server"],
            entrypoint=["/usr/bin/server"],
        ),
        Image(
            [f"{CONFORMANCE}/echo-basic:{v}" for v in ("v1.5.1", "v1.6.0-dev.2", "v1.6.0-dev.3")],
            programs / "echo-basic",
            entrypoint=["/echo-basic"],
        ),
    ]
    # For rules of a pod's own network, without Weir.
    if nft := shutil.which("nft"):
        found.append(Image(["docker.io/local/nft:1"], pathlib.Path(nft), entrypoint=["/nft"], user="0:0"))
    # The suite's server of names over UDP, an older version of the same.
    found.append(
        Image(
            ["registry.k8s.io/coredns/coredns:v1.12.2"],
            programs / "coredns",
            entrypoint=["/coredns"],
            user="0:0",
        )
    )
    if (programs / "jaeger").exists():
        found.append(
            Image(["docker.io/jaegertracing/all-in-one:1.62.0"], programs / "jaeger", entrypoint=["/jaeger"])
        )
    return found, absent


def load(it, wanted=None):
    """Brings images into a cluster; says which of Weir's own are not built."""
    found, absent = images()
    for image in found:
        if wanted is not None and image.program.name not in wanted:
            continue
        it.import_image(image.archive())
        repository = image.names[0].rpartition(":")[0]
        for other in (*image.names[1:], f"{repository}:{image.digest()}"):
            it.run(
                *("ctr", "-n", "k8s.io", "images", "tag", "--force", image.names[0], other),
                mounts=True,
            )
    return absent
