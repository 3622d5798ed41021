"""What Kubernetes makes of a pod and of a NetworkPolicy: the rules that matter here, as its documentation has them."""

import re
from collections.abc import Iterator
from typing import Any

UNITS = {"": 1, "m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 1e3, "M": 1e6, "G": 1e9}
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def quantity(text: Any) -> float:
    found = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text))
    assert found and found[2] in UNITS, text
    return float(found[1]) * UNITS[found[2]]


def requests(pod: dict[str, Any]) -> dict[str, float]:
    """What a pod takes of a quota: its containers together, or more where one that runs before them takes more."""

    def asked(container: dict[str, Any]) -> dict[str, float]:
        return {name: quantity(amount) for name, amount in container["resources"]["requests"].items()}

    total: dict[str, float] = {}
    for container in pod["containers"]:
        for name, amount in asked(container).items():
            total[name] = total.get(name, 0) + amount
    for container in pod.get("initContainers", ()):
        total |= {name: max(total.get(name, 0), amount) for name, amount in asked(container).items()}
    return total


def not_restricted(pod: dict[str, Any]) -> Iterator[str]:
    """Why Pod Security `restricted` refuses the pod."""
    whole = pod.get("securityContext", {})
    if any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        yield "host namespaces"
    if any(not VOLUMES & volume.keys() for volume in pod.get("volumes", ())):
        yield "volumes"
    for container in (*pod["containers"], *pod.get("initContainers", ())):
        name, own = container["name"], container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{name}: allowPrivilegeEscalation"
        if own.get("privileged") or any(port.get("hostPort") for port in container.get("ports", ())):
            yield f"{name}: privileged, or a port of the host"
        if own.get("capabilities", {}).get("drop") != ["ALL"] or own["capabilities"].get("add"):
            yield f"{name}: capabilities"
        users = own.get("runAsUser"), whole.get("runAsUser")
        if own.get("runAsNonRoot", whole.get("runAsNonRoot")) is not True or 0 in users:
            yield f"{name}: runAsNonRoot"
        profile = own.get("seccompProfile", whole.get("seccompProfile", {}))
        if profile.get("type") not in ("RuntimeDefault", "Localhost"):
            yield f"{name}: seccompProfile"


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels"}, selector
    return selector.get("matchLabels", {}).items() <= labels.items()


def admits(policy: dict[str, Any], port: int, pod: dict[str, str], namespace: str, same: bool) -> bool:
    """Whether the policy lets a pod with these labels reach the port. same: it is in the policy's own namespace."""
    return any(
        any(_is_from(peer, pod, namespace, same) for peer in rule["from"])
        and ("ports" not in rule or port in [allowed["port"] for allowed in rule["ports"]])
        for rule in policy["ingress"]
    )


def _is_from(peer: dict[str, Any], pod: dict[str, str], namespace: str, same: bool) -> bool:
    if "namespaceSelector" in peer:
        place = selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": namespace})
    else:
        place = same
    return place and selects(peer.get("podSelector", {}), pod)
