"""The tasks of the integration tests that are about files."""

import hashlib
from pathlib import Path

from django.core.files import File
from django.core.files.base import ContentFile

from taskapi.params import FileParameter, IntParameter, JSONParameter, ListParameter, StringParameter
from taskapi.tasks import Task


class Digest(Task):
    """The size and the digest of each file, read in parts."""

    name = "digest"
    inputs = {"files": ListParameter(FileParameter())}
    outputs = {"found": JSONParameter()}

    def run(self, files):
        return [{"name": file.name, "size": file.size, "digest": digest_of(file)} for file in files]


class AsyncDigest(Digest):
    name = "async_digest"

    async def run(self, files):
        return super().run(files)


class AloneDigest(Digest):
    name = "alone_digest"
    isolation = "process"


class GiveBack(Task):
    """Return the file that was given."""

    name = "give_back"
    inputs = {"file": FileParameter()}
    outputs = {"copy": FileParameter()}

    def run(self, file):
        return file


class AloneGiveBack(GiveBack):
    name = "alone_give_back"
    isolation = "process"


class AsyncGiveBack(GiveBack):
    name = "async_give_back"

    async def run(self, file):
        return file


class Gated(File):
    """A file of which the storage gets a part, and the rest when the gate is open."""

    def __init__(self, gate: str) -> None:
        super().__init__(ContentFile(b"part" + b"rest"), "gated.bin")
        self.gate = gate
        self.passes = 0

    def chunks(self, chunk_size=None):
        self.passes += 1
        yield b"part"
        if self.passes == 2:  # the first is for the digest
            Path(self.gate).read_bytes()
        yield b"rest"


class AsideGated(Task):
    """Return a gated file in the first attempt."""

    name = "aside_gated"
    queue = "aside"
    inputs = {"gate": StringParameter()}
    outputs = {"file": FileParameter()}

    def run(self, gate):
        self.add_message("returns")
        return Gated(gate) if self.info.attempt == 1 else ContentFile(b"whole", "whole.bin")


class AsideAloneGated(AsideGated):
    name = "aside_alone_gated"
    isolation = "process"
    timeout = None


class Make(Task):
    """Return a file of so many bytes."""

    name = "make"
    inputs = {"size": IntParameter()}
    outputs = {"file": FileParameter()}

    def run(self, size):
        return Zeros(size)


class Zeros(File):
    def __init__(self, size: int) -> None:
        super().__init__(ContentFile(b""), "zeros.bin")
        self.size = size

    def chunks(self, chunk_size=None):
        left = self.size
        while left:
            part = min(left, 2**16)
            left -= part
            yield bytes(part)


def digest_of(file) -> str:
    found = hashlib.sha256()
    for chunk in file.chunks():
        found.update(chunk)
    return found.hexdigest()
