"""As much of a Kubernetes API server as kubectl asks for: what kinds there are, objects in memory, strict Ray kinds.

Of controllers it has the least: a RayJob is `Running` at once, with the submitter's Job and pod.
"""

import base64
import copy
import json
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.cluster import kuberay

# group/version: {plural: (kind, short name)}; all but namespaces lie in one.
KINDS = {
    "v1": {
        "namespaces": ("Namespace", "ns"),
        "pods": ("Pod", "po"),
        "services": ("Service", "svc"),
        "secrets": ("Secret", ""),
        "configmaps": ("ConfigMap", "cm"),
        "events": ("Event", "ev"),
    },
    "batch/v1": {"jobs": ("Job", "")},
    "networking.k8s.io/v1": {"networkpolicies": ("NetworkPolicy", "netpol")},
    "ray.io/v1": {
        "rayclusters": ("RayCluster", ""),
        "rayjobs": ("RayJob", ""),
        "raycronjobs": ("RayCronJob", ""),
    },
    "kueue.x-k8s.io/v1beta2": {},
}
STRICT = ("RayCluster", "RayJob", "RayCronJob")


class Refused(Exception):
    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


@dataclass
class Place:
    """Of a URL: the kind, where, which, and what of it."""

    version: str
    plural: str
    namespace: str
    name: str = ""
    part: str = ""

    @property
    def kind(self) -> str:
        return KINDS[self.version][self.plural][0]


@dataclass
class Cluster:
    """`asked`: each request, as `GET /api/v1/pods`. `coming`: what is there the second time that somebody looks."""

    coming: list[Callable[[], None]] = field(default_factory=list)
    objects: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)  # (plural, namespace, name)
    asked: list[str] = field(default_factory=list)

    def add(self, plural: str, thing: dict[str, Any], namespace: str) -> dict[str, Any]:
        about = thing.setdefault("metadata", {})
        about |= {"uid": str(uuid.uuid4()), "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z"}
        about.setdefault("namespace", namespace)
        self.objects[plural, namespace, about["name"]] = thing
        if plural == "rayjobs":
            self._runs(thing, namespace)
            self._leads(about["name"], f"{about['name']}-x2b4d", namespace)
        if plural == "rayclusters":
            self._leads(about["name"], about["name"], namespace)
            token = {"auth_token": base64.b64encode(b"token").decode()}
            self.add("secrets", thing_of("Secret", about["name"], data=token), namespace)
        return thing

    def _leads(self, owner: str, cluster: str, namespace: str) -> None:
        """The head, and the Service that leads to it: of a RayJob it is turned round where it is there already."""
        labels = {"ray.io/cluster": cluster, "ray.io/node-type": "head"}
        self.add("pods", pod(f"{cluster}-head", labels), namespace)
        service = {"selector": labels, "ports": [{"port": 8265}], "clusterIP": "None"}
        self.add("services", thing_of("Service", f"{owner}-head-svc", spec=service), namespace)

    def _runs(self, job: dict[str, Any], namespace: str) -> None:
        """Its submitter, whose pod is not there at once."""
        name = job["metadata"]["name"]
        job["status"] = {"jobDeploymentStatus": "Running", "jobStatus": "SUCCEEDED"}
        labels = {"batch.kubernetes.io/job-name": name, "job-name": name}
        spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}}}
        submitter = self.add("jobs", thing_of("Job", name, "batch/v1", spec=spec, status={}), namespace)

        def comes() -> None:
            self.add("pods", pod(f"{name}-b7k9q", labels), namespace)
            submitter["status"] = {"active": 1, "ready": 1}

        self.coming.append(comes)

    def come(self) -> None:
        while self.coming:
            self.coming.pop()()

    def found(self, place: Place) -> dict[str, Any]:
        try:
            return self.objects[place.plural, place.namespace, place.name]
        except KeyError:
            raise Refused(404, f'{place.plural} "{place.name}" not found') from None

    def listed(self, place: Place, query: dict[str, str]) -> dict[str, Any]:
        wanted = dict(
            pair.split("=", 1) for pair in query.get("labelSelector", "").replace("==", "=").split(",") if pair
        )
        name = query.get("fieldSelector", "").partition("metadata.name=")[2]
        items = [
            thing
            for (plural, namespace, each), thing in sorted(self.objects.items(), key=lambda item: item[0])
            if plural == place.plural and place.namespace in ("", namespace) and name in ("", each)
            and wanted.items() <= thing["metadata"].get("labels", {}).items()
        ]  # fmt: skip
        about = {"resourceVersion": "1"}
        return {"kind": f"{place.kind}List", "apiVersion": place.version, "metadata": about, "items": items}


def thing_of(kind: str, name: str, version: str = "v1", **fields: Any) -> dict[str, Any]:
    return {"kind": kind, "apiVersion": version, "metadata": {"name": name}} | fields


def pod(name: str, labels: dict[str, str]) -> dict[str, Any]:
    ready = [{"type": "Ready", "status": "True"}]
    made = thing_of("Pod", name, spec={"containers": [{"name": "one", "image": "flowcache"}]})
    made["metadata"]["labels"] = labels
    return made | {"status": {"phase": "Running", "conditions": ready}}


def merged(old: Any, patch: Any) -> Any:
    """By JSON merge patch."""
    if not isinstance(patch, dict):
        return patch
    kept = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        kept[key] = merged(kept.get(key), value)
        if value is None:
            del kept[key]
    return kept


class Handler(BaseHTTPRequestHandler):
    cluster: Cluster
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):
        pass

    def do_GET(self):
        self._answer()

    do_POST = do_PATCH = do_DELETE = do_GET

    def _answer(self) -> None:
        url = urlsplit(self.path)
        self.cluster.asked.append(f"{self.command} {url.path}" + ("?watch" if "watch=" in url.query else ""))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        try:
            code, answer = 200, discovery(url.path) or self._do(place_of(url.path), query, body)
        except Refused as refused:
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "metadata": {}}
            reason = {404: "NotFound", 409: "AlreadyExists", 422: "Invalid"}.get(refused.code, "BadRequest")
            code, answer = refused.code, status | {"message": str(refused), "code": refused.code, "reason": reason}
        data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _do(self, place: Place, query: dict[str, str], body: bytes) -> Any:
        if place.part == "log":
            return "a line\n" if self.cluster.found(place) else ""
        if place.part:
            raise Refused(400, f"{place.part} is not served here")
        if self.command == "GET" and "watch" in query:
            self.close_connection = True
            return ""
        if self.command == "GET":
            answer = self.cluster.found(place) if place.name else self.cluster.listed(place, query)
            if place.plural in ("jobs", "pods"):
                answer = copy.deepcopy(answer)
                self.cluster.come()
            return answer
        if self.command == "DELETE":
            found = self.cluster.found(place)
            del self.cluster.objects[place.plural, place.namespace, place.name]
            return found
        if self.command == "PATCH":
            changed = merged(self.cluster.found(place), read(body, place))
            key = (place.plural, place.namespace, place.name)
            self.cluster.objects[key] = self._strictly(place, changed, query)
            return changed
        return self._create(place, self._strictly(place, read(body, place), query))

    def _create(self, place: Place, thing: dict[str, Any]) -> dict[str, Any]:
        name = thing["metadata"]["name"]
        if (place.plural, place.namespace, name) in self.cluster.objects:
            raise Refused(409, f'{place.plural} "{name}" already exists')
        if place.namespace and ("namespaces", "", place.namespace) not in self.cluster.objects:
            raise Refused(404, f'namespaces "{place.namespace}" not found')
        return self.cluster.add(place.plural, thing, place.namespace)

    def _strictly(self, place: Place, thing: dict[str, Any], query: dict[str, str]) -> dict[str, Any]:
        if place.kind in STRICT and (wrong := kuberay.faults(thing)):
            raise Refused(422, "; ".join(wrong))
        if query.get("fieldValidation", "Strict") != "Strict":
            raise Refused(400, "kubectl did not ask for a strict check")
        return thing


def read(body: bytes, place: Place) -> dict[str, Any]:
    """An object, as JSON; of one in Kubernetes' protobuf its name alone."""
    if not body.startswith(b"k8s\0"):
        return json.loads(body)
    about = parts(parts(parts(body[4:])[2])[1])  # Unknown.raw, its metadata
    return thing_of(place.kind, about[1].decode(), place.version)


def parts(message: bytes) -> dict[int, bytes]:
    """The fields of a protobuf message that have a length, the last of each number."""
    found: dict[int, bytes] = {}
    while message:
        key, message = number(message)
        value, message = number(message)
        if key & 7 == 2:
            found[key >> 3], message = message[:value], message[value:]
    return found


def number(message: bytes) -> tuple[int, bytes]:
    value = shift = 0
    for at, byte in enumerate(message):
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, message[at + 1 :]
    return value, b""


def discovery(path: str) -> dict[str, Any] | None:
    if path == "/version":
        return {"major": "1", "minor": "36", "gitVersion": "v1.36.0"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        groups = [
            {"name": group, "versions": [each], "preferredVersion": each}
            for group, version in (name.split("/") for name in KINDS if "/" in name)
            for each in [{"groupVersion": f"{group}/{version}", "version": version}]
        ]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    version = path.removeprefix("/apis/").removeprefix("/api/")
    if version in KINDS:
        kinds = [
            {"name": plural, "singularName": kind.lower(), "kind": kind, "namespaced": kind != "Namespace"}
            | {"verbs": ["create", "delete", "get", "list", "patch", "watch"], "shortNames": [short] if short else []}
            for plural, (kind, short) in KINDS[version].items()
        ]
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": kinds}
    return openapi(path)


def openapi(path: str) -> dict[str, Any] | None:
    """That this server checks fields itself, so kubectl need not."""
    if path == "/openapi/v3":
        urls = {("apis/" if "/" in version else "api/") + version for version in KINDS}
        return {"paths": {url: {"serverRelativeURL": f"/openapi/v3/{url}"} for url in urls}}
    if not path.startswith("/openapi/v3/"):
        return None
    version = path.removeprefix("/openapi/v3/").removeprefix("apis/").removeprefix("api/")
    group, _, number = version.rpartition("/")
    paths = {
        f"/{plural}/{{name}}": {
            "patch": {
                "parameters": [{"name": "fieldValidation", "in": "query"}],
                "responses": {},
                "x-kubernetes-group-version-kind": {"group": group, "version": number, "kind": kind},
            }
        }
        for plural, (kind, _) in KINDS[version].items()
    }
    return {"openapi": "3.0.0", "info": {"title": "cluster", "version": "1"}, "paths": paths}


def place_of(path: str) -> Place:
    words = path.strip("/").split("/")
    version, rest = (words[1], words[2:]) if words[0] == "api" else ("/".join(words[1:3]), words[3:])
    namespace = ""
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    if version not in KINDS or not rest or rest[0] not in KINDS[version]:
        raise Refused(404, f"the server could not find the requested resource {path}")
    return Place(version, rest[0], namespace, *rest[1:3])


def serve(cluster: Cluster, folder: Path) -> tuple[ThreadingHTTPServer, Path]:
    """The server, running, and a kubeconfig that leads to it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Of", (Handler,), {"cluster": cluster}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = folder / "kubeconfig"
    where = {"name": "one", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
    context = {"name": "one", "context": {"cluster": "one", "user": "one"}}
    config.write_text(
        json.dumps(
            {"apiVersion": "v1", "kind": "Config", "clusters": [where], "contexts": [context], "current-context": "one"}
            | {"users": [{"name": "one", "user": {"token": "x"}}]}
        )
    )
    return server, config
