"""What must not reach a cluster, and what git says of a project."""

import io
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from cong.errors import UserError
from cong.graph.resources import profile_path
from cong.submit.packing import Packed, left_out, pack

PROFILE = profile_path("laptop")
SECRETS = (
    ".env", ".env.local", "prod.env", "deploy/key.pem", "deploy/server.key", "id_ed25519", ".netrc", ".ssh/config",
    "secrets.yaml", "service-account-7.json", ".aws/credentials", ".git-credentials",
)  # fmt: skip
HARMLESS = (".env.example", "id_rsa.pub", "credentials.py", "monkey.txt", "environment.yml", "keys/alpha.csv")


def write(root: Path, *names: str, text: str = "x") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture(params=["repository", "plain directory"])
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    root = tmp_path / "project"
    write(root, "try.py", text="def cells(scale): ...\n")
    if request.param == "repository":
        subprocess.run(["git", "init", "-q", str(root)], check=True)
    return root


def packed(root: Path, include: tuple[str, ...] = ()) -> Packed:
    return pack(experiment=root / "try.py", profile=PROFILE, root=root, store=root / "runs", include=include)


def names(package: Packed) -> set[str]:
    inside = zipfile.ZipFile(io.BytesIO(package.archive)).namelist()
    return {name for name in inside if not name.startswith(("cong/", "cong_submitted/"))}


def test_files_that_may_hold_secrets_are_left_out_and_named(project):
    write(project, *SECRETS, *HARMLESS)
    package = packed(project)
    assert names(package) == {"try.py", *HARMLESS}
    assert set(package.left_out) == set(SECRETS)
    assert "--include FILE sends one" in left_out(package)[0]


def test_a_secret_is_packed_when_it_is_asked_for_by_name(project):
    write(project, ".env", "deploy/key.pem")
    package = packed(project, include=(".env",))
    assert ".env" in names(package)
    assert package.left_out == ("deploy/key.pem",)
    with pytest.raises(UserError, match=r"--include .envv: .* has no such file"):
        packed(project, include=(".envv",))


def test_links_out_of_the_project_are_left_out_and_links_inside_are_content(project, tmp_path):
    write(tmp_path, "outside/passwords.txt", "outside/tool.py")
    write(project, "inside.py")
    (project / "passwords.txt").symlink_to(tmp_path / "outside" / "passwords.txt")
    (project / "tool.py").symlink_to("../outside/tool.py")
    (project / "alias.py").symlink_to("inside.py")
    package = packed(project)
    assert names(package) == {"try.py", "inside.py", "alias.py"}
    assert set(package.left_out) == {"passwords.txt", "tool.py"}


def test_a_package_is_what_git_lists_for_every_form_of_ignore_rules(tmp_path):
    root = tmp_path / "project"
    write(root, "try.py", "a.ckpt", "keep.ckpt", "data/big.csv", "data/small.csv", "deep/x.tmp", "tracked.log", "b.log")
    (root / ".gitignore").write_bytes(
        "\ufeffgr\u00f6\u00dfe.txt\n*.ckpt\n!keep.ckpt\r\n/data/**\n!data/small.csv\n*.log\n".encode()
    )
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    subprocess.run(["git", "-C", str(root), "add", "-f", "tracked.log"], check=True)
    (root / ".git" / "info" / "exclude").write_text("*.tmp\n")
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True, check=True
    )
    assert names(packed(root)) == set(listed.stdout.split())
    assert "tracked.log" in names(packed(root))
    assert "deep/x.tmp" not in names(packed(root))


def test_rules_that_are_no_utf8_are_read_as_names_are(tmp_path):
    root = tmp_path / "project"
    write(root, "try.py")
    (root / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    (root / ".gitignore").write_bytes(b"caf\xe9.txt\n")
    assert names(packed(root)) == {"try.py", ".gitignore"}


@pytest.mark.parametrize("name", ["two\u00a0words.txt", "tab\there.txt", "gr\u00f6\u00dfe.txt", "\u6570.txt"])
def test_a_name_of_any_characters_is_sent(project, name):
    write(project, name)
    assert name in names(packed(project))


def test_directories_that_git_lists_and_rayignore_names_are_left_out_whole(tmp_path):
    root = tmp_path / "project"
    write(root, "try.py", "weights/deep/model.bin", "weights/keep.txt", "runs/.cong/x", "kept/runs.txt", "sub/a.tmp")
    write(root, ".rayignore", text="weights/\n")
    write(root, "sub/.rayignore", text="*.tmp\n")
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    subprocess.run(["git", "-C", str(root), "add", "-f", "."], check=True)
    assert names(packed(root)) == {"try.py", ".rayignore", "sub/.rayignore", "kept/runs.txt"}


def test_a_name_that_is_no_text_is_one_line(project):
    (project / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    with pytest.raises(UserError, match="its name is no text"):
        packed(project)
