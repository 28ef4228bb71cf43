"""Whatever a cluster, a kubeconfig or the network does: one line, the way out, an exit code, and never a traceback."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pretend_api import PretendApi, refusal
from ring_operator.cli import main
from ring_operator.remote.errors import error_of


@pytest.fixture
def api() -> Iterator[PretendApi]:
    with PretendApi() as api:
        yield api


@pytest.fixture
def ringctl(monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """Exit code, standard output, standard error."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ringctl", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return int(ended.value.code or 0), out, err

    return run


RBAC = 'ringtrainingjobs is forbidden: User "ada" cannot list resource "ringtrainingjobs" in the namespace "team"'


@pytest.mark.parametrize(
    "status, body, code, said, remedy",
    [
        (401, refusal(401, "Unauthorized", "Unauthorized"), 5, "does not accept the credentials", "expired"),
        (403, refusal(403, "Forbidden", RBAC), 5, 'User "ada" cannot list', "Ask an administrator"),
        (404, "404 page not found\n", 5, "does not know RingTrainingJobs", "ringctl crd | kubectl apply"),
        (429, refusal(429, "TooManyRequests", "too many requests"), 5, "HTTP status 429", "Try again"),
        (500, refusal(500, "InternalError", "etcdserver: request timed out"), 5, "etcdserver", ""),
        (503, "upstream connect error", 5, "HTTP status 503: upstream connect error", "Try again"),
        (200, "<html>a proxy's login page</html>", 5, "not as an API server does", ""),
    ],
)
def test_an_answer_that_is_no_list(
    api: PretendApi, ringctl: Any, tmp_path: Path, status: int, body: str, code: int, said: str, remedy: str
) -> None:
    api.refuse(status, body, times=3)
    found, _, err = ringctl("status", "--kubeconfig", api.kubeconfig(tmp_path))
    assert found == code
    assert said in err
    assert remedy in err


def test_an_admission_rule_is_a_refusal_and_no_lack_of_rights() -> None:
    body = refusal(403, "Forbidden", 'admission webhook "quota.example" denied the request: two jobs a team')
    error = error_of(403, body, "job tiny")
    assert error.exit_code == 1
    assert "two jobs a team" in str(error)


def test_causes_become_faults_at_their_fields() -> None:
    causes = [
        {"reason": "FieldValueForbidden", "message": "Forbidden: may not be changed", "field": "spec.model"},
        {"reason": "FieldValueInvalid", "message": 'Invalid value: "object": must be even', "field": "spec.context"},
    ]
    error = error_of(422, refusal(422, "Invalid", "is invalid", causes=causes), "job tiny")
    assert [(f.path, f.message) for f in error.faults] == [
        ("spec.model", "may not be changed"),
        ("spec.context", "must be even"),
    ]
    assert error.exit_code == 1


@pytest.mark.parametrize(
    "body", ["", "[]", "null", "{}", '{"kind": "Status"}', '{"kind":"Status","details":7}', "\x00"]
)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 418, 422, 500])
def test_an_error_without_sense_is_an_error_with_sense(status: int, body: str) -> None:
    error = error_of(status, body, "job tiny")
    assert "job tiny" in str(error)


def test_nobody_listens(api: PretendApi, ringctl: Any, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = f"http://127.0.0.1:{free.getsockname()[1]}"
    code, _, err = ringctl("status", "--kubeconfig", api.kubeconfig(tmp_path, server))
    assert code == 5
    assert f"no connection to {server}: Connection refused" in err
    assert "Is the cluster up" in err


def test_a_name_that_nobody_knows(api: PretendApi, ringctl: Any, tmp_path: Path) -> None:
    code, _, err = ringctl("status", "--kubeconfig", api.kubeconfig(tmp_path, "https://no-such-host.invalid:6443"))
    assert code == 5
    assert "no connection to https://no-such-host.invalid:6443" in err
    assert "object at 0x" not in err


@pytest.mark.parametrize("server", ["http://", "https://[", "nonsense", "https://a b", "ftp://x"])
def test_a_server_that_is_no_address(api: PretendApi, ringctl: Any, tmp_path: Path, server: str) -> None:
    assert ringctl("status", "--kubeconfig", api.kubeconfig(tmp_path, server))[0] == 5


AUTHORITY = """
[ca]
default_ca = this
[this]
database = index
serial = serial
new_certs_dir = .
default_md = sha256
policy = any
x509_extensions = names
[any]
commonName = supplied
[names]
subjectAltName = IP:127.0.0.1
"""


def certificate(folder: Path, begin: str, end: str) -> Path:
    """A certificate for 127.0.0.1, signed by itself, with its key in the same file. Times as 20200131000000Z."""
    (folder / "ca.cnf").write_text(AUTHORITY)
    (folder / "index").touch()
    (folder / "serial").write_text("01")
    new_key = "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=127.0.0.1"
    sign = f"openssl ca -batch -selfsign -config ca.cnf -notext -startdate {begin} -enddate {end}"
    for command in (f"{new_key} -keyout key -out request", f"{sign} -keyfile key -in request -out certificate"):
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    (folder / "server.pem").write_text((folder / "key").read_text() + (folder / "certificate").read_text())
    return folder / "server.pem"


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[Callable[[Path], str]]:
    """Shakes hands, and no more."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(pem: Path) -> str:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pem)

        def shake() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                try:
                    context.wrap_socket(connection, server_side=True).close()
                except OSError:
                    connection.close()

        threading.Thread(target=shake, daemon=True).start()
        return f"https://127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    listener.close()


def test_a_certificate_of_somebody_else(api: PretendApi, ringctl: Any, tmp_path: Path, tls_server: Any) -> None:
    server = tls_server(certificate(tmp_path, "20200101000000Z", "20990101000000Z"))
    code, _, err = ringctl("status", "--kubeconfig", api.kubeconfig(tmp_path, server))
    assert code == 5
    assert f"the certificate of {server} is not trusted: self-signed certificate" in err
    assert "certificate-authority" in err


def test_an_expired_certificate(api: PretendApi, ringctl: Any, tmp_path: Path, tls_server: Any) -> None:
    server = tls_server(certificate(tmp_path, "20200101000000Z", "20200102000000Z"))
    path = api.kubeconfig(tmp_path, server)
    document = yaml.safe_load(path.read_text())
    document["clusters"][0]["cluster"]["certificate-authority"] = str(tmp_path / "certificate")
    path.write_text(yaml.safe_dump(document))
    code, _, err = ringctl("status", "--kubeconfig", path)
    assert code == 5
    assert "certificate has expired" in err
    assert "An administrator of the cluster must renew it" in err


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "cannot be used"),
        ("a: [", "cannot be used"),
        ("just words", "cannot be used"),
        ("apiVersion: v1\nkind: Config\nclusters: []\ncontexts: []\nusers: []\n", "no context is chosen"),
        ("apiVersion: v1\nkind: Config\nclusters: []\ncontexts: []\nusers: []\ncurrent-context: gone\n", "gone"),
    ],
    ids=["empty", "no yaml", "words", "no context", "lost context"],
)
def test_a_kubeconfig_that_is_none(ringctl: Any, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "kubeconfig").write_text(text)
    code, _, err = ringctl("status", "--kubeconfig", tmp_path / "kubeconfig")
    assert code == 5
    assert said in err
    assert str(tmp_path / "kubeconfig") in err


def test_no_kubeconfig_at_all(ringctl: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no kubeconfig at ~/.kube/config" in ringctl("status")[2]
    monkeypatch.setenv("KUBECONFIG", "/nowhere/at/all")
    code, _, err = ringctl("status")
    assert code == 5
    assert "KUBECONFIG: there is no kubeconfig at /nowhere/at/all" in err
    assert "--kubeconfig: there is no kubeconfig at /x" in ringctl("status", "--kubeconfig", "/x")[2]


def test_a_context_that_is_not_there(api: PretendApi, ringctl: Any, tmp_path: Path) -> None:
    code, _, err = ringctl("status", "--context", "there", "--kubeconfig", api.kubeconfig(tmp_path))
    assert code == 5
    assert "--context: there is not in" in err
    assert "There are: here." in err


def test_a_login_plugin_that_fails(api: PretendApi, ringctl: Any, tmp_path: Path) -> None:
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-plugin", "interactiveMode": "Never"}
    code, _, err = ringctl("status", "--kubeconfig", api.kubeconfig(tmp_path, exec=plugin))
    assert code == 5
    assert "no-such-plugin" in err
    assert "Log in to the cluster again" in err
    assert "ERROR" not in err


def test_a_client_certificate_that_is_gone(api: PretendApi, ringctl: Any, tmp_path: Path) -> None:
    user = {"client-certificate": "/gone.crt", "client-key": "/gone.key"}
    path = api.kubeconfig(tmp_path, "https://127.0.0.1:1", **user)
    code, _, err = ringctl("status", "--kubeconfig", path)
    assert code == 5
    assert "/gone.crt" in err


def test_without_the_client_the_way_to_it_is_told_and_the_rest_works(tmp_path: Path) -> None:
    """As after `pip install ring-training-operator` without an extra."""
    code = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('kubernetes', 'urllib3', 'kopf', 'aiohttp'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "import importlib.util as util\n"
        "found = util.find_spec\n"
        "util.find_spec = lambda name, package=None: None if name == 'kubernetes' else found(name, package)\n"
        "from ring_operator.cli import main\n"
        "sys.argv[0] = 'ringctl'\n"
        "main()\n"
    )
    asked = subprocess.run([sys.executable, "-c", code, "status"], capture_output=True, text=True, timeout=60)
    assert asked.returncode == 5
    assert "pip install 'ring-training-operator[operator]'" in asked.stderr
    assert "Traceback" not in asked.stderr
    local = subprocess.run([sys.executable, "-c", code, "version"], capture_output=True, text=True, timeout=60)
    assert local.returncode == 0
