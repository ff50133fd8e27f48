"""What the three programs share: files by URI in, a report for the operator out.

The report goes to the container's termination message, which Kubernetes cuts at 4096 bytes.
"""

import hashlib
import json
import os
import sys
from urllib.parse import unquote, urlparse

LIMIT = 4096
TERMINATION_LOG = os.environ.get("TERMINATION_LOG", "/dev/termination-log")


def path_of(uri):
    """The local path of a file:// URI; a plain path is taken as it is."""
    parsed = urlparse(uri)
    if parsed.scheme not in ("", "file") or parsed.netloc not in ("", "localhost"):
        sys.exit(f"cannot read {uri}: only file:// URIs of a mounted volume are understood here")
    return unquote(parsed.path)


def write(directory, name, save):
    """Writes directory/name through save(file), so that nobody ever sees half a file; returns its path."""
    os.makedirs(directory, exist_ok=True)
    path = os.path.abspath(os.path.join(directory, name))
    partial = f"{path}.{os.getpid()}.partial"
    with open(partial, "wb") as file:
        save(file)
    os.replace(partial, path)
    return path


def artifact(name, path, kind):
    """The record of one output: where it is, and what makes it that file and no other."""
    with open(path, "rb") as file:
        content = file.read()
    return {
        "name": name,
        "uri": "file://" + path,
        "digest": "sha256:" + hashlib.sha256(content).hexdigest(),
        "size": len(content),
        "type": kind,
    }


def report(metrics, artifacts=()):
    """Hands metrics and artifacts to the operator, and shows them in the log."""
    text = json.dumps({"metrics": metrics, "artifacts": list(artifacts)})
    if len(text.encode()) > LIMIT:
        sys.exit(f"the report has {len(text.encode())} bytes, and a termination message holds {LIMIT}: report less")
    print(text)
    # Outside a pod there is no such file, and the line above is all there is to see.
    if os.path.exists(TERMINATION_LOG):
        with open(TERMINATION_LOG, "w", encoding="utf-8") as file:
            file.write(text)
