"""kopf watches the jobs and calls here. A doorway hands the event on and returns nothing."""

from __future__ import annotations

from typing import Any, cast

import kopf

from ring_operator import names
from ring_operator.handlers.controller import Controller


def registry_for(controller: Controller) -> kopf.OperatorRegistry:
    """kopf's handlers, bound to a controller. None of them patches, so kopf writes nothing to any job."""
    registry = kopf.OperatorRegistry()

    @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=registry)
    async def job_event(event: kopf.RawEvent, **_: Any) -> None:
        controller.saw(cast(dict[str, Any], event["object"]), gone=event.get("type") == "DELETED")

    @kopf.on.login(registry=registry, retries=3)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await connection_info(controller)

    return registry


async def connection_info(controller: Controller) -> kopf.ConnectionInfo:
    """kopf connects as everything else here does."""
    configuration = controller.configuration
    settings = await configuration.auth_settings()
    scheme, token = None, None
    if bearer := settings.get("BearerToken"):
        scheme, _, token = str(bearer["value"]).partition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        scheme=scheme,
        token=token,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
    )


def settings_of(silence: float) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.watching.server_timeout = 290
    settings.watching.client_timeout = 300
    settings.watching.inactivity_timeout = silence
    settings.watching.connect_timeout = 10
    return settings
