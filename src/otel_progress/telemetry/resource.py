"""The resource that all signals of a process name: service, host, process and instance."""

from __future__ import annotations

import os
import socket
import sys
import uuid
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry.sdk import resources
from opentelemetry.sdk.resources import Resource

from otel_progress import launch, procfs
from otel_progress import semconv as s
from otel_progress.live import redaction
from otel_progress.model.command_line import bounded, without_secrets
from otel_progress.model.values import Value

_OF_PROCESS: Final = (s.PROCESS_PID, s.PROCESS_CREATED, s.PROCESS_COMMAND_ARGS, s.PROCESS_FOLDER)


def detect(given: Mapping[str, Any], *, forked: bool) -> Resource:
    """The resource of this process: what is given, the standard variables, the host, the process and an instance id."""
    resource = _created(dict(given)).merge(Resource(_process()))
    resource = Resource({s.HOST_NAME: socket.gethostname()}).merge(resource)
    if forked or s.SERVICE_INSTANCE_ID not in resource.attributes:
        resource = resource.merge(Resource({s.SERVICE_INSTANCE_ID: _instance_id()}))
    return Resource(redaction.attributes(resource.attributes))


def _created(given: dict[str, Any]) -> Resource:
    """The SDK's resource; once the interpreter ends, when no pool may start, without what detectors know."""
    try:
        return Resource.create(given)
    except RuntimeError:
        named = {s.SERVICE_NAME: f"unknown_service:{os.path.basename(sys.executable or 'python')}"}
        return Resource(named).merge(resources.OTELResourceDetector().detect()).merge(Resource(given))


def exported(tracers: Any, resource: Resource, *, forked: bool) -> dict[str, Value]:
    """The resource attributes of our own requests: the tracer provider's, so that all signals name one service."""
    found = getattr(tracers, "resource", None) or resource
    given = {s.HOST_NAME: resource.attributes[s.HOST_NAME], **found.attributes}
    given |= {key: resource.attributes[key] for key in _OF_PROCESS if key in resource.attributes}
    if forked or s.SERVICE_INSTANCE_ID not in given:
        given[s.SERVICE_INSTANCE_ID] = resource.attributes[s.SERVICE_INSTANCE_ID]
    return dict(redaction.attributes(given))


def service_of(about: Mapping[str, Any]) -> str:
    """The service of a resource as Prometheus names it in the label `job`: with its namespace, if it has one."""
    name, namespace = about.get(s.SERVICE_NAME), about.get(s.SERVICE_NAMESPACE)
    return f"{namespace}/{name}" if namespace else str(name or "")


def environment_of(about: Mapping[str, Any]) -> str | None:
    """The deployment environment of a resource, which the series of runs have as a label; None without one."""
    found = about.get(s.ENVIRONMENT)
    return str(found) if found else None


def _instance_id() -> str:
    """The instance id of this process: the SDK's, so that all signals agree; a forked child has a new one."""
    try:
        detector = resources.ServiceInstanceIdResourceDetector()  # not in the oldest SDK that we support
        return str(detector.detect().attributes[s.SERVICE_INSTANCE_ID])
    except (AttributeError, KeyError):
        return str(uuid.uuid4())


def _process() -> dict[str, Any]:
    """What identifies this process on its host, so that a watcher can tell when it is gone; and its command."""
    about: dict[str, Any] = {s.PROCESS_PID: os.getpid()}
    seen = procfs.look(os.getpid())
    created = None if seen is None else procfs.created(seen)
    if created is not None:
        about[s.PROCESS_CREATED] = procfs.iso(created)
    arguments = () if launch.is_code() else without_secrets(bounded(launch.command()), redaction.text)
    if arguments:
        about[s.PROCESS_COMMAND_ARGS] = arguments
        about[s.PROCESS_FOLDER] = launch.folder()
    return about
