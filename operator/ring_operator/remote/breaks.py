"""What the libraries below raise when a connection fails -> one line that says why.

Their texts hold the reason in the midst of object addresses and repetitions; only the known parts are kept.
"""

from __future__ import annotations

import re

from ring_operator.remote.errors import UnreachableError

_CERTIFICATE = re.compile(r"certificate verify failed: (?P<why>[^(\n]+)")
_ERRNO = re.compile(r"\[Errno -?\d+\] (?P<why>[^'\")\n]+)")
_ALERT = re.compile(r"alert (?P<why>[a-z ]+)", re.IGNORECASE)


def broken(error: Exception, what: str, server: str) -> UnreachableError:
    """Any error of a connection; the text of the ones it came from is in its own."""
    text = " ".join(f"{type(error).__name__} {error}".split())
    if found := _CERTIFICATE.search(text):
        why = found["why"].strip()
        return _error(what, f"the certificate of {server} is not trusted: {why}", _trust(why))
    if "CERTIFICATE" in text.upper() and (found := _ALERT.search(text)):
        return _error(what, f"{server} does not accept your certificate: {found['why'].strip()}", _LOG_IN)
    if "imeout" in text or "timed out" in text:
        return _error(what, f"{server} does not answer", _CHECK, again=True)
    if found := _ERRNO.search(text):
        return _error(what, f"no connection to {server}: {found['why'].strip()}", _CHECK, again=True)
    return _error(what, f"no connection to {server}: {text[:200]}", _CHECK, again=True)


_CHECK = "Is the cluster up, and is it the one you mean? kubectl config current-context tells; --context names another."
_LOG_IN = "Log in to the cluster again: the certificate in your kubeconfig may have expired."


def _trust(why: str) -> str:
    if "expired" in why or "not yet valid" in why:
        return "An administrator of the cluster must renew it; or this machine's clock is wrong."
    return "Your kubeconfig may be of another cluster: its certificate-authority must be this server's."


def _error(what: str, message: str, remedy: str, again: bool = False) -> UnreachableError:
    return UnreachableError(f"{what}: {message}", remedy, again=again)
