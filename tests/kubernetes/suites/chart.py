"""The chart on an API server: what only one can say about it."""

import base64
import json
import re
import textwrap

from harness import images, mesh

DOCS = images.REPOSITORY / "docs/src"
TESTS = images.REPOSITORY / "tests/tests"
BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)
# By itself, or as an entry of a list.
DOCUMENT = re.compile(
    r"^( *)(- )?apiVersion: weir\.dev/v1alpha1\n(?:(?!---)(?:\1(?(2)  )\S.*|\1(?(2)  ) +.*|\s*)\n)*",
    re.MULTILINE,
)
# Of an object's own, in either way of writing.
NAMESPACE = re.compile(r"^metadata:(?:\n(?:  .*\n)*?  | *\{[^}]*\b)namespace: *([\w-]+)", re.MULTILINE)


def setup(kube):
    mesh.install(kube)


def documents():
    """Every document of Weir's kinds in the documentation and in tests of policies."""
    files = [*sorted(DOCS.glob("*.md")), *sorted(TESTS.glob("*/*.yaml"))]
    for path in files:
        text = path.read_text()
        if path.suffix == ".md":
            text = "---\n".join(BLOCK.findall(text))
        at = 0
        while match := DOCUMENT.search(text, at):
            # An entry of a list begins with a dash where the others have blanks.
            document = textwrap.dedent(match[0].replace("- apiVersion", "  apiVersion", 1))
            if "\nkind: Mesh\n" in document:
                # It holds others, and is none of the cluster's.
                at = text.index("\n", match.start())
            else:
                at = match.end()
                yield path.name, document


def create(kube, document):
    return kube.kubectl(
        *("create", "--dry-run=server", "--validate=strict", "--filename=-"), input=document, check=False
    )


def test_every_document_of_the_docs_and_tests_is_accepted(kube):
    found = list(documents())
    assert len(found) >= 30, f"{len(found)} documents"
    spaces = {"default": kube}
    try:
        for page, document in found:
            named = NAMESPACE.search(document)
            name = named[1] if named else "default"
            if name not in spaces:
                spaces[name] = kube.make(name)
            answer = create(spaces[name], document)
            assert answer.returncode == 0, f"{page}: {answer.stderr}\n{document}"
    finally:
        for name in spaces.keys() - {"default"}:
            kube.delete("namespace", name)


def test_a_field_that_is_not_known_is_refused(kube):
    split = mesh.split("web", v1=90, v2=10)
    split["spec"]["versions"][0]["wieght"] = 1
    split["spec"]["stikcy"] = {"user": True}
    answer = create(kube, json.dumps(split))
    for field in ("spec.versions[0].wieght", "spec.stikcy"):
        assert f'unknown field "{field}"' in answer.stderr, answer.stderr


def test_a_weight_that_is_none_is_refused(kube):
    answer = create(kube, json.dumps(mesh.split("web", v1=-1)))
    assert "spec.versions[0].weight" in answer.stderr, answer.stderr


def state(kube):
    """What the control plane keeps in objects of the chart."""
    system = kube.within(mesh.NAMESPACE)
    webhooks = kube.get("mutatingwebhookconfiguration", "weir-injector")["webhooks"]
    return {
        "authority": system.get("secret", "weir-ca")["data"],
        "token": system.get("secret", "weir-api-token")["data"],
        "roots": system.get("configmap", "weir-trust-bundle")["data"],
        "caBundle": [webhook["clientConfig"].get("caBundle") for webhook in webhooks],
    }


def test_an_upgrade_and_a_rollback_keep_what_the_control_plane_wrote(kube):
    before = state(kube)
    assert all(before["caBundle"]) and all(before.values()), before.keys()
    for change in (
        ("upgrade", "weir", mesh.CHART, "--reset-then-reuse-values", "--set=injector.timeoutSeconds=7"),
        ("rollback", "weir"),
    ):
        mesh.helm(*change, "--namespace", mesh.NAMESPACE, "--wait")
        mesh.ready(kube)
        after = state(kube)
        for what in ("authority", "token", "roots"):
            assert after[what] == before[what], what
        # Another replica may have renewed the certificate.
        assert all(after["caBundle"]), after["caBundle"]


def test_values_that_are_wrong_never_reach_the_cluster(kube):
    answer = mesh.helm(
        *("upgrade", "weir", mesh.CHART, "--namespace", mesh.NAMESPACE, "--reuse-values"),
        "--set=controlPlane.replcas=2",
        check=False,
    )
    assert answer.returncode != 0 and "replcas" in answer.stderr, answer.stderr


def test_every_right_that_the_control_plane_needs_it_has_and_no_other(kube):
    def may(verb, resource, namespace, name=None):
        thing = f"{resource}/{name}" if name else resource
        return kube.kubectl(
            *("auth", "can-i", verb, thing, f"--namespace={namespace}"),
            f"--as=system:serviceaccount:{mesh.NAMESPACE}:weir-control-plane",
            check=False,
        ).stdout.strip() == "yes"

    for verb, resource, namespace, name in (
        ("watch", "endpointslices.discovery.k8s.io", "default", None),
        ("patch", "trafficsplits.weir.dev", "default", None),
        ("patch", "httproutes.gateway.networking.k8s.io/status", "default", None),
        ("create", "configmaps", "default", None),
        ("patch", "configmaps", "default", "weir-trust-bundle"),
        ("patch", "mutatingwebhookconfigurations.admissionregistration.k8s.io", "default", "weir-injector"),
        ("update", "secrets", mesh.NAMESPACE, "weir-ca"),
    ):
        assert may(verb, resource, namespace, name), f"{verb} {resource} {name}"
    for verb, resource, namespace, name in (
        ("create", "secrets", mesh.NAMESPACE, None),
        ("update", "secrets", "default", None),
        ("patch", "configmaps", "default", "another"),
        ("delete", "configmaps", "default", None),
        ("patch", "mutatingwebhookconfigurations.admissionregistration.k8s.io", "default", "another"),
        ("create", "pods", "default", None),
        ("patch", "pods", "default", None),
        ("patch", "pods", mesh.NAMESPACE, None),
        ("create", "pods/exec", "default", None),
        ("patch", "deployments.apps", mesh.NAMESPACE, None),
        ("create", "clusterrolebindings.rbac.authorization.k8s.io", "default", None),
    ):
        assert not may(verb, resource, namespace, name), f"{verb} {resource} {name}"


def test_the_token_is_what_the_notes_say(kube):
    token = kube.within(mesh.NAMESPACE).get("secret", "weir-api-token")["data"]["token"]
    assert len(base64.b64decode(token)) >= 16


def test_helm_test_passes(kube):
    mesh.helm("test", "weir", "--namespace", mesh.NAMESPACE, "--timeout=4m", timeout=280)
    kube.wait(lambda: not kube.exists("namespace", "weir-test"), "nothing of the test is left", seconds=60)
