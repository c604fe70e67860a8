#!/usr/bin/env python3
"""python-tuf, unmodified, beside our TUF: it reads what we publish, we read what it publishes, and both refuse the same.

    python_tuf.py BENCH WORK        BENCH: plimsoll-bench, with plimsoll beside it; WORK: an empty directory

Each promise prints one line `held` or `BROKEN`, as the other foreign clients do; the exit code counts the broken ones.
"""

import datetime
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import DownloadHTTPError, RepositoryError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer
from tuf.ngclient import FetcherInterface, Updater

BENCH, WORK = Path(sys.argv[1]), Path(sys.argv[2])
PLIMSOLL = BENCH.parent / "plimsoll"
NOW = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
DAY = datetime.timedelta(days=1)
TARGET = "pump-app/1.2.0/pump-box.bin"
CUSTOM = {
    "plimsoll": {
        "v": 1,
        "product": "pump-app",
        "version": "1.2.0",
        "security_version": 3,
        "hardware": ["pump-box"],
        "must_pass": ["1.1.0"],
    }
}
ROLES = ["root", "timestamp", "snapshot", "targets"]


class Files(FetcherInterface):
    """Serves a directory to python-tuf, whose own fetcher speaks HTTP only."""

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = Path(unquote(urlparse(url).path))
        if not path.is_file():
            raise DownloadHTTPError(f"no {path.name}", 404)
        yield path.read_bytes()


def theirs(repo: Path, root: bytes, cache: Path | None = None) -> Updater:
    """A whole cycle of python-tuf's client. Raises when it refuses."""
    cache = cache or fresh("cache")
    updater = Updater(
        metadata_dir=str(cache),
        metadata_base_url=(repo / "metadata").as_uri(),
        target_dir=str(cache),
        target_base_url=(repo / "targets").as_uri(),
        fetcher=Files(),
        bootstrap=root,
    )
    updater.refresh()
    return updater


def ours(repo: Path, root: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """A whole cycle of our client, from the same root."""
    return subprocess.run(
        [BENCH, "tuf-read", "--root", root, "--metadata", repo / "metadata", *more],
        capture_output=True,
        text=True,
        timeout=60,
    )


def fresh(name: str) -> Path:
    path = WORK / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


# ---------------------------------------------------------------- they read ours


def python_tuf_reads_our_image_repository() -> None:
    repo = WORK / "made/images"
    root = (repo / "metadata/1.root.json").read_bytes()
    updater = theirs(repo, root)
    assert updater._trusted_set.root.version == 2
    info = updater.get_targetinfo(TARGET)
    assert info is not None
    image = Path(updater.download_target(info)).read_bytes()
    assert image == b"the image of pump-app 1.2.0", image
    assert info.custom == CUSTOM, info.custom


def python_tuf_counts_our_signatures() -> None:
    metadata = WORK / "made/images/metadata"
    root = Metadata[Root].from_file(str(metadata / "2.root.json"))
    for name, role, signatures in [
        ("2.root.json", "root", 2),
        ("3.targets.json", "targets", 2),
        ("4.snapshot.json", "snapshot", 1),
        ("timestamp.json", "timestamp", 1),
    ]:
        file = Metadata.from_file(str(metadata / name))
        result = root.signed.get_verification_result(role, file.signed_bytes, file.signatures)
        assert result.verified and len(result.signed) == signatures, (name, result)
        # What it would write of what it read is what we signed.
        assert file.signed.to_dict() == json.loads((metadata / name).read_text())["signed"], name


def python_tuf_reads_what_a_vendor_publishes() -> None:
    """`plimsoll release` from the first key to a second root. The client goes on from state to state."""
    acme, cache = fresh("vendor") / "acme", fresh("vendor-cache")
    repo = acme / "repository"

    def release(command: str, *more: object) -> str:
        done = subprocess.run(
            [PLIMSOLL, "release", command, "--vendor", acme, *map(str, more)], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def publish(version: str, image: bytes) -> None:
        file = acme.parent / "image"
        file.write_bytes(image)
        words = ["--product", "pump-app", "--release", version, "--hardware", "pump-box", "--security-version", 3]
        release("publish", *words, *(["--must-pass", "1.1.0"] if version == "1.2.0" else []), file)

    release("init")
    root = (repo / "metadata/1.root.json").read_bytes()
    theirs(repo, root, cache)
    publish("1.1.0", b"the image of pump-app 1.1.0")
    assert theirs(repo, root, cache).get_targetinfo(TARGET) is None, "not published yet"
    publish("1.2.0", b"the image of pump-app 1.2.0")
    release("refresh", "--targets", "--root")
    listed = json.loads(release("list", "--json"))
    # Who reads needs none of the keys.
    shutil.rmtree(acme / "keys")
    updater = theirs(repo, root, cache)
    versions = [updater._trusted_set[role].version for role in ROLES]
    assert versions == [2, 4, 4, 4] == [entry["version"] for entry in listed["metadata"]], versions
    for entry in listed["releases"]:
        info = updater.get_targetinfo(entry["path"])
        assert info is not None and info.hashes == {"sha256": entry["sha256"]}, entry
        image = Path(updater.download_target(info)).read_bytes()
        assert image == b"the image of pump-app " + entry["release"].encode(), image
    assert [entry["release"] for entry in listed["releases"]] == ["1.1.0", "1.2.0"], listed
    info = updater.get_targetinfo(TARGET)
    assert info.custom == CUSTOM, info.custom
    assert ours(repo, repo / "metadata/1.root.json").returncode == 0


def python_tuf_reads_our_directors_word() -> None:
    repo = WORK / "made/director"
    updater = theirs(repo, (repo / "metadata/1.root.json").read_bytes())
    info = updater.get_targetinfo(TARGET)
    assert info is not None and info.custom["plimsoll"]["rollout"] == "r-12"
    for role in ["timestamp", "snapshot", "targets"]:
        signed = updater._trusted_set[role]
        assert signed.version == 41
        assert signed.unrecognized_fields == {"plimsoll_device": "pump-7"}, role


def python_tuf_refuses_what_was_changed() -> None:
    made = WORK / "made/images"
    root = (made / "metadata/1.root.json").read_bytes()
    taken, tried = 0, 0
    for name in ["2.root.json", "timestamp.json", "4.snapshot.json", "3.targets.json"]:
        bytes_ = (made / "metadata" / name).read_bytes()
        for at in range(0, len(bytes_), 31):
            repo = copy(made)
            changed = bytearray(bytes_)
            changed[at] ^= 1
            (repo / "metadata" / name).write_bytes(changed)
            taken += same_verdict(repo, root, f"{name}, byte {at}")
            tried += 1
    # Every signature in these files is needed, and every byte of what they sign.
    assert taken == 0 and tried > 100, (taken, tried)
    print(f"  ({tried} changed files judged alike)")


# ---------------------------------------------------------------- we read theirs


class Repo:
    """A repository made by python-tuf's own API."""

    def __init__(self) -> None:
        self.dir = fresh("python-repo")
        (self.dir / "metadata").mkdir()
        self.keys = {
            "root": [CryptoSigner.generate_ed25519(), CryptoSigner.generate_ecdsa()],
            "timestamp": [CryptoSigner.generate_ecdsa()],
            "snapshot": [CryptoSigner.generate_ed25519()],
            "targets": [CryptoSigner.generate_ecdsa(), CryptoSigner.generate_ed25519()],
        }
        self.roles = {
            "root": Root(expires=NOW + 30 * DAY, unrecognized_fields={"note": 'ünïcode " \\ /'}),
            "timestamp": Timestamp(expires=NOW + DAY),
            "snapshot": Snapshot(expires=NOW + DAY),
            "targets": Targets(expires=NOW + DAY, unrecognized_fields={"x": {"b": [1, None, True], "a": -5}}),
        }
        for role, signers in self.keys.items():
            for signer in signers:
                self.roles["root"].add_key(signer.public_key, role)
        self.roles["root"].roles["root"].threshold = 2
        self.roles["root"].roles["targets"].threshold = 2
        target = TargetFile.from_data("dir/über.bin", b"an image", ["sha256", "sha512"])
        self.roles["targets"].targets[target.path] = target
        self.hashes = True

    def write(self, role: str, signers: list[CryptoSigner] | None = None) -> bytes:
        metadata = Metadata(self.roles[role])
        for signer in self.keys[role] if signers is None else signers:
            metadata.sign(signer, append=True)
        bytes_ = metadata.to_bytes(JSONSerializer(compact=role != "targets"))
        version = self.roles[role].version
        name = f"{role}.json" if role == "timestamp" else f"{version}.{role}.json"
        (self.dir / "metadata" / name).write_bytes(bytes_)
        return bytes_

    def meta(self, role: str, bytes_: bytes) -> MetaFile:
        version = self.roles[role].version
        return MetaFile.from_data(version, bytes_, ["sha256", "sha512"]) if self.hashes else MetaFile(version)

    def publish(self, signers: dict[str, list[CryptoSigner]] | None = None) -> None:
        """Writes all four, each naming the one before it."""
        by = (signers or {}).get
        if not (self.dir / f"metadata/{self.roles['root'].version}.root.json").exists():
            self.write("root", by("root"))
        self.roles["snapshot"].meta["targets.json"] = self.meta("targets", self.write("targets", by("targets")))
        self.roles["timestamp"].snapshot_meta = self.meta("snapshot", self.write("snapshot", by("snapshot")))
        self.write("timestamp", by("timestamp"))

    @property
    def root(self) -> Path:
        return self.dir / "metadata/1.root.json"


def we_read_what_python_tuf_publishes() -> None:
    for hashes in [True, False]:
        repo = Repo()
        repo.hashes = hashes
        repo.publish()
        # Seven roots, one of which has other keys throughout.
        for n in range(2, 8):
            before = repo.keys["root"]
            if n == 5:
                root = repo.roles["root"]
                for role in ROLES:
                    for signer in repo.keys[role]:
                        root.revoke_key(signer.public_key.keyid, role)
                    repo.keys[role] = [CryptoSigner.generate_ed25519() for _ in repo.keys[role]]
                    for signer in repo.keys[role]:
                        root.add_key(signer.public_key, role)
            repo.roles["root"].version = n
            repo.write("root", before + [s for s in repo.keys["root"] if s not in before])
        for role in ["timestamp", "snapshot", "targets"]:
            repo.roles[role].version += 1
        repo.publish()
        result = ours(repo.dir, repo.root)
        assert result.returncode == 0, result.stderr
        assert "root 7, timestamp 2, snapshot 2, targets 2" in result.stdout, result.stdout
        assert "dir/über.bin 8 None" in result.stdout, result.stdout
        theirs(repo.dir, repo.root.read_bytes())


# ---------------------------------------------------------------- both judge alike


def copy(repo: Path) -> Path:
    to = WORK / "changed"
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(repo, to)
    return to


def same_verdict(repo: Path, root: bytes, what: str) -> bool:
    """Whether both take it. That one does and the other does not is a broken promise."""
    try:
        theirs(repo, root)
        their = "taken"
    except (RepositoryError, DownloadHTTPError) as error:
        their = f"{type(error).__name__}: {error}"
    trusted = WORK / "trusted.json"
    trusted.write_bytes(root)
    result = ours(repo, trusted)
    our = "taken" if result.returncode == 0 else result.stderr.strip().replace("\n", " ")
    assert (their == "taken") == (our == "taken"), f"{what}: python-tuf: {their}; ours: {our}"
    return our == "taken"


def both_refuse_the_same() -> None:
    def only(role: str, count: int):
        return lambda r: r.publish({role: r.keys[role][:count]})

    def by_a_stranger(role: str):
        return lambda r: r.publish({role: [CryptoSigner.generate_ed25519() for _ in r.keys[role]]})

    def ended(role: str):
        def attack(r: Repo) -> None:
            r.roles[role].expires = NOW - DAY
            r.publish()

        return attack

    def another_version(role: str):
        def attack(r: Repo) -> None:
            r.hashes = False
            r.publish()
            r.roles[role].version += 1
            bytes_ = r.write(role)
            (r.dir / f"metadata/1.{role}.json").write_bytes(bytes_)

        return attack

    def without(name: str):
        def attack(r: Repo) -> None:
            r.publish()
            (r.dir / "metadata" / name).unlink()

        return attack

    def delegating(r: Repo) -> None:
        key = CryptoSigner.generate_ed25519()
        role = DelegatedRole("other", [key.public_key.keyid], 1, False, paths=["*"])
        r.roles["targets"].delegations = Delegations({key.public_key.keyid: key.public_key}, {"other": role})
        r.roles["snapshot"].meta["other.json"] = MetaFile(1)
        r.publish()

    def next_root(by):
        def attack(r: Repo) -> None:
            r.publish()
            old = r.keys["root"]
            new = [CryptoSigner.generate_ed25519(), CryptoSigner.generate_ed25519()]
            for signer in old:
                r.roles["root"].revoke_key(signer.public_key.keyid, "root")
            for signer in new:
                r.roles["root"].add_key(signer.public_key, "root")
            r.roles["root"].version = 2
            r.write("root", by(old, new))

        return attack

    def skipped(r: Repo) -> None:
        r.publish()
        r.roles["root"].version = 3
        (r.dir / "metadata/2.root.json").write_bytes(r.write("root"))
        (r.dir / "metadata/3.root.json").unlink()

    def edited(name: str, change):
        def attack(r: Repo) -> None:
            r.publish()
            path = r.dir / "metadata" / name
            file = json.loads(path.read_text())
            change(file)
            path.write_text(json.dumps(file))

        return attack

    table = {
        "nothing is wrong": (True, Repo.publish),
        "no hashes are stated": (True, lambda r: (setattr(r, "hashes", False), r.publish())),
        "another layout of a file that nobody names by digest": (True, edited("timestamp.json", lambda f: None)),
        "a field outside what is signed": (True, edited("timestamp.json", lambda f: f.update(note="x"))),
        "a new root by old keys and new": (True, next_root(lambda old, new: old + new)),
        "root by one of two": (False, lambda r: r.publish({"root": r.keys["root"][:1]})),
        "targets by one of two": (False, only("targets", 1)),
        "a timestamp by nobody": (False, only("timestamp", 0)),
        "a snapshot by nobody": (False, only("snapshot", 0)),
        "a timestamp by a stranger": (False, by_a_stranger("timestamp")),
        "a snapshot by a stranger": (False, by_a_stranger("snapshot")),
        "targets by strangers": (False, by_a_stranger("targets")),
        "a root that ended": (False, ended("root")),
        "a timestamp that ended": (False, ended("timestamp")),
        "a snapshot that ended": (False, ended("snapshot")),
        "targets that ended": (False, ended("targets")),
        "a snapshot of another version than named": (False, another_version("snapshot")),
        "targets of another version than named": (False, another_version("targets")),
        "no timestamp": (False, without("timestamp.json")),
        "no snapshot": (False, without("1.snapshot.json")),
        "no targets": (False, without("1.targets.json")),
        "a new root by new keys alone": (False, next_root(lambda old, new: new)),
        "a new root by old keys alone": (False, next_root(lambda old, new: old)),
        "a new root by one of each": (False, next_root(lambda old, new: [old[0], new[0]])),
        "a root left out": (False, skipped),
        "a signature twice": (False, edited("timestamp.json", lambda f: f["signatures"].append(f["signatures"][0]))),
        "a version changed": (False, edited("timestamp.json", lambda f: f["signed"].update(version=9))),
        "a field added to what is signed": (False, edited("timestamp.json", lambda f: f["signed"].update(x=1))),
        "the snapshot as timestamp": (
            False,
            lambda r: (
                r.publish(),
                shutil.copy(r.dir / "metadata/1.snapshot.json", r.dir / "metadata/timestamp.json"),
            ),
        ),
    }
    for what, (taken, attack) in table.items():
        repo = Repo()
        attack(repo)
        if what == "root by one of two":
            # The root that a client came with is judged before there is anything to fetch.
            assert ours(repo.dir, repo.root).returncode != 0
            try:
                theirs(repo.dir, repo.root.read_bytes())
            except RepositoryError:
                continue
            raise AssertionError(what)
        assert same_verdict(repo.dir, repo.root.read_bytes(), what) == taken, what
    # The one thing that python-tuf takes and we do not, as we say: delegations come later.
    repo = Repo()
    delegating(repo)
    theirs(repo.dir, repo.root.read_bytes())
    result = ours(repo.dir, repo.root)
    assert result.returncode != 0 and "delegations" in result.stderr, result.stderr
    print(f"  ({len(table)} repositories judged alike)")


def we_take_a_directors_word_for_its_device_only() -> None:
    repo = WORK / "made/director"
    root = repo / "metadata/1.root.json"
    assert ours(repo, root, "--device", "pump-7").returncode == 0
    for wrong in [["--device", "pump-8"], []]:
        result = ours(repo, root, *wrong)
        assert result.returncode != 0 and "pump-7" in result.stderr, result.stderr


PROMISES = [
    ("python-tuf reads, verifies and downloads what we publish", python_tuf_reads_our_image_repository),
    ("python-tuf counts the signatures that we made, Ed25519 and ECDSA", python_tuf_counts_our_signatures),
    ("python-tuf reads what `plimsoll release` publishes, without its keys", python_tuf_reads_what_a_vendor_publishes),
    ("python-tuf reads the Director's word for one device", python_tuf_reads_our_directors_word),
    ("we take it for that device only", we_take_a_directors_word_for_its_device_only),
    ("what is changed on the way is refused by both", python_tuf_refuses_what_was_changed),
    ("we read what python-tuf publishes, across root rotations", we_read_what_python_tuf_publishes),
    ("both take and refuse the same repositories", both_refuse_the_same),
]


def main() -> int:
    broken = 0
    subprocess.run([BENCH, "tuf-make", "--out", fresh("made")], check=True, timeout=60)
    for words, promise in PROMISES:
        try:
            promise()
            print(f"  held    {words}", flush=True)
        except Exception as error:  # whatever went wrong, the promise was not kept
            broken += 1
            print(f"  BROKEN  {words}\n          {type(error).__name__}: {error}", flush=True)
    print(f"tuf: {len(PROMISES) - broken} passed, {broken} failed")
    return broken


sys.exit(main())
