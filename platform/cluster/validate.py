"""`crossview check-cluster`: problems that `ray up` would run into, by field and fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from crossview.errors import UserError

REQUIRED = {
    "cluster_name": "a name of your choice",
    "provider.type": "aws, or local for machines of your own",
    "auth.ssh_user": "the user that ssh logs in as, such as ubuntu",
}
OF_PROVIDER = {
    "aws": {
        "provider.region": "where machines start, such as us-west-2",
        "available_node_types": "the kinds of machines; see cluster.yaml",
        "head_node_type": "which of available_node_types the head is",
    },
    "local": {
        "provider.head_ip": "the address of the machine that runs the head",
        "provider.worker_ips": "the addresses of the other machines, or []",
        "auth.ssh_private_key": "the key that logs in on all of them, such as ~/.ssh/id_ed25519",
    },
}


def check(file: Path) -> None:
    """Raise ValueError for the first thing that `ray up` could not work with; local paths count from here."""
    try:
        config = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{file}{place}: not YAML ({reason}); start from cluster.yaml or cluster-local.yaml") from error
    if not isinstance(config, dict):
        raise UserError(f"{file}: no fields in it; start from cluster.yaml or cluster-local.yaml")
    _require(file, config, REQUIRED)
    for field in ("available_node_types", "file_mounts"):
        if not isinstance(config.get(field) or {}, dict):
            raise UserError(f"{file}: {field} is {config[field]!r}; it must be fields with values, as in cluster.yaml")
    _require(file, config, OF_PROVIDER.get(config["provider"]["type"], {}))
    kinds = config.get("available_node_types") or {}
    if kinds and config.get("head_node_type") not in kinds:
        raise UserError(
            f"{file}: head_node_type is {config.get('head_node_type')!r}; choose from {', '.join(kinds)}, the kinds "
            "under available_node_types"
        )
    if config["provider"]["type"] == "aws":
        for kind in kinds:
            field = f"available_node_types.{kind}.node_config.InstanceType"
            _require(file, config, {field: "the kind of machine, such as m7i.xlarge"})
    _paths(file, config)
    _schema(file, config)


def _require(file: Path, config: dict[str, Any], fields: dict[str, str]) -> None:
    for field, meaning in fields.items():
        value: Any = config
        for name in field.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if value is None:
            raise UserError(f"{file}: the field {field} is missing; write there {meaning}")
        if field in REQUIRED and not isinstance(value, str):
            raise UserError(f"{file}: the field {field} is {value!r}; write there {meaning}")


def _paths(file: Path, config: dict[str, Any]) -> None:
    named = {f"file_mounts.{there}": here for there, here in (config.get("file_mounts") or {}).items()}
    if "ssh_private_key" in config["auth"]:
        named["auth.ssh_private_key"] = config["auth"]["ssh_private_key"]
    for field, path in named.items():
        if Path(str(path)).expanduser().exists():
            continue
        token = str(path).endswith("/auth_token")
        fix = "make it with `ray get-auth-token --generate`" if token else "name what exists; ./ is the checkout"
        raise UserError(f"{file}: {field} names {path}, which does not exist here; {fix}")


def _schema(file: Path, config: dict[str, Any]) -> None:
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        validate_config(prepare_config(config))
    except jsonschema.ValidationError as error:
        place = ".".join(map(str, error.absolute_path)) or "the file"
        raise UserError(f"{file}: {place}: {error.message}; cluster.yaml shows a working one") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # Ray takes the types of some fields for granted
        raise UserError(
            f"{file}: Ray cannot read it ({type(error).__name__}: {error}); cluster.yaml shows a working one"
        ) from error
