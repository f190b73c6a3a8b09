"""Files that hold secrets are not copied with the code, unless git tracks them; one line names what was left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_projects import MINIMAL, run_git, write

from launcher.clusters.slurm import prelude_files as prelude
from launcher.code import no_secret, snapshot
from launcher.code.snapshot import find

CANARY = "canary-5f3e9c71"
KEY = f"-----BEGIN OPENSSH PRIVATE KEY-----\n{CANARY}\n{'A' * 70}\n-----END OPENSSH PRIVATE KEY-----\n"
CERTIFICATE = f"-----BEGIN CERTIFICATE-----\n{'A' * 70}\n-----END CERTIFICATE-----\n"

SECRET = (
    *(".env", ".env.local", "prod.env", ".envrc", "conf/.env.production", "models/.env"),
    *("id_rsa", "id_ed25519", "keys/id_ecdsa_sk", "deploy.key", "server.pem", "a.p12", "a.pfx", "a.jks", "a.ppk", "vault.kdbx"),
    *(".netrc", "_netrc", ".pypirc", ".npmrc", ".pgpass", ".git-credentials", ".htpasswd", ".aws/config", ".ssh/config", ".kube/config"),
    *("credentials", "credentials.json", "aws-credentials.csv", "gcp_service_account.json", "service-account-prod.json", "kaggle.json"),
    *("client_secret_123.json", "secrets.yaml", "conf/secrets.toml", "secret.txt", "token", "hf_token", "wandb-token.txt", "API_KEY.txt"),
    *("passwords.txt", ".secrets/x.yaml", "secrets/prod.yaml"),
)
CODE = (
    *("secrets.py", "models/token.py", "data/credentials.cu", "secrets.md", ".env.example", ".env.sample", "id_rsa.pub"),
    *("tokenizer.json", "special_tokens_map.json", "added_tokens.json", "keys.yaml", "conf/environment.yaml", "env.yaml"),
    *("token_type_ids.txt", "monkey.yaml", "passwordless.md", "conf/model/keypoint.yaml", "secretary.yaml"),
)


@pytest.fixture(params=["git", "no git"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    no_secret._told.clear()
    folder = write(tmp_path / "project", MINIMAL)
    if request.param == "git":
        run_git(folder, "init", "-q")
        run_git(folder, "add", "--all")
        run_git(folder, "commit", "-q", "--no-verify", "-m", "all")
    return folder


def _copied(project: Path, tmp_path: Path) -> set[str]:
    find(project, []).copy_to(tmp_path / "copy")
    return {path.relative_to(tmp_path / "copy").as_posix() for path in (tmp_path / "copy").rglob("*") if not path.is_dir()}


@pytest.mark.parametrize("name", SECRET)
def test_a_name_says_secret(name: str) -> None:
    assert no_secret.is_secret_name(name)


@pytest.mark.parametrize("name", CODE)
def test_code_and_examples_are_copied_whatever_they_are_called(name: str) -> None:
    assert not no_secret.is_secret_name(name)


def test_no_secret_of_the_checkout_is_copied_and_one_line_names_it(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inside = {f"models/{name}": CANARY for name in SECRET}
    write(project, inside | {f"models/{name}": "code" for name in CODE} | {"models/deploy": KEY, "models/ca.pem": CERTIFICATE})
    (project / "models" / "settings").symlink_to(tmp_path / "elsewhere.env")
    write(tmp_path, {"elsewhere.env": CANARY, "innocent": KEY})
    (project / "models" / "other").symlink_to(tmp_path / "innocent")
    (project / "models" / "third").symlink_to(".env")
    copied = _copied(project, tmp_path)
    assert {f"models/{name}" for name in CODE} | {"models/ca.pem"} <= copied
    assert copied.isdisjoint({*inside, "models/deploy", "models/settings", "models/other", "models/third"})
    assert not any(CANARY.encode() in path.read_bytes() for path in (tmp_path / "copy").rglob("*") if path.is_file())
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("launcher: warning: models/")
    assert "not copied with the code" in line


def test_what_git_tracks_is_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = write(tmp_path / "project", {**MINIMAL, "models/ca.key": KEY, ".env": "A=1", "[x].env": "A=1"})
    run_git(project, "init", "-q")
    run_git(project, "add", "--all")
    assert {"models/ca.key", ".env", "[x].env"} <= _copied(project, tmp_path)
    assert capsys.readouterr().err == ""
    write(project, {"x.env": "A=1"})  # a pattern is not a name
    assert "x.env" not in {name for name, _ in snapshot.find(project, []).files}


def test_a_prelude_takes_no_secret_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, {"site/p.sh": ". ./.env; . ./gpu.sh", "site/.env": CANARY, "site/gpu.sh": "true"})
    prelude.copy(tmp_path / "site" / "p.sh", tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"p.sh", "gpu.sh"}
    assert "by its whole path" in capsys.readouterr().err
