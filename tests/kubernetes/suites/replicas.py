"""Three replicas of the control plane, a rollout by kubectl, and a leader that is killed."""

import json
import time

from harness import mesh
from harness.kube import app

SPACE = "replicas"
CONTROL = "weir-control-plane"
STEPS = [step for weight in range(10, 100, 10) for step in ({"setWeight": weight}, {"pause": {"duration": "2s"}})]


def setup(kube):
    mesh.install(kube, controlPlane__replicas="3")
    space = kube.make(SPACE, mesh.INJECTED)
    space.apply(*app("echo", "v1"), *app("echo", "v2"))
    space.rolled_out("echo-v1", "echo-v2")


def teardown(kube):
    kube.delete("namespace", SPACE)
    mesh.install(kube)


def leader(kube):
    lease = kube.within(mesh.NAMESPACE).get("lease", CONTROL)
    return lease["spec"].get("holderIdentity", "")


def status(kube):
    return kube.within(SPACE).get("rollout", "echo").get("status", {})


def weight(kube):
    return status(kube).get("weight", 0)


def test_every_replica_is_behind_the_service(kube):
    system = kube.within(mesh.NAMESPACE)
    slices = system.get("endpointslices", selector=f"kubernetes.io/service-name={CONTROL}")
    ready = [
        endpoint["targetRef"]["name"]
        for each in slices
        for endpoint in each["endpoints"] or []
        if endpoint["conditions"].get("ready")
    ]
    assert len(set(ready)) == 3 and leader(kube) in ready, (ready, leader(kube))


def test_a_rollout_goes_on_when_the_leader_is_killed(kube):
    space = kube.within(SPACE)
    system = kube.within(mesh.NAMESPACE)
    # All to v1, by the field manager that the rollout has too.
    mesh.weir(kube, "shift", f"echo.{SPACE}", "v1=100", "v2=0", "--wait")
    load = space.load("rollout", "http://echo/", "--rate=50", "--count=1000000", "--method=POST")
    try:
        space.apply(
            {
                "apiVersion": "weir.dev/v1alpha1",
                "kind": "Rollout",
                "metadata": {"name": "echo"},
                "spec": {"service": "echo", "stable": "v1", "canary": "v2", "steps": STEPS},
            }
        )
        space.wait(lambda: weight(kube) >= 30, "the third step", seconds=60)
        old, before = leader(kube), weight(kube)
        killed = time.monotonic()
        system.kubectl("delete", "pod", old, "--grace-period=0", "--force", "--wait=false")
        space.wait(lambda: leader(kube) not in ("", old), "another leader", seconds=30, every=0.1)
        led = time.monotonic() - killed
        space.wait(lambda: weight(kube) > before, "the next step", seconds=30, every=0.1)
        on = time.monotonic() - killed
        print(f"   another one leads after {led:.1f} s, the next step after {on:.1f} s, pauses included")
        space.wait(lambda: status(kube).get("phase") == "Succeeded", "its end", seconds=90)
    finally:
        report = load.stop()
    assert report["sent"] > 0 and report["failed"] == 0, report
    split = space.get("trafficsplit", "echo")["spec"]["versions"]
    assert {v["name"]: v["weight"] for v in split} == {"v1": 0, "v2": 100}, split


def test_history_is_one_chain(kube):
    told = json.loads(mesh.weir(kube, "verify-history", "--output=json"))
    assert told["ok"], told
