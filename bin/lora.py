"""Start lorafactory from a checkout: make or mend `.venv` where needed, then run it. Standard library only.

`.venv/lorafactory.stamp` says what the environment was made from. It is written last; while an install runs
it says `unfinished`, so an install that was killed is seen and begun afresh.
"""

import hashlib
import os
import sys

UV = "0.13.8"
CUDA_DRIVER = 580  # the oldest Linux driver that the package index's torch (CUDA 13) works with
NEEDS_YOU, RETRY, STOPPED = 3, 5, 75  # as in lorafactory/errors.py

WINDOWS = os.name == "nt"
ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, *(("Scripts", "python.exe") if WINDOWS else ("bin", "python")))
STAMP = os.path.join(VENV, "lorafactory.stamp")
PROJECT, LOCK = os.path.join(ROOT, "pyproject.toml"), os.path.join(ROOT, "requirements.lock")

# a Python that is new enough, with a pip that is whole: its list of files is written last
PROBE = """
import importlib.metadata, sys
whole = any(pip.files for pip in importlib.metadata.distributions(name="pip"))
sys.exit(sys.version_info < (3, 11) or not whole)
"""


def main(args):
    if sys.version_info < (3, 11):
        have = sys.version.split()[0]
        fail(f"Python 3.11 or newer is needed, this is {have}", "install a newer one", NEEDS_YOU)
    only_setup = args[:1] == ["--setup"]
    kind = "dev" if only_setup and args[1:] == ["dev"] else "user"
    try:
        if not ready(kind):
            with alone():
                if not ready(kind):  # another start may have made it while this one waited
                    set_up(kind)
    except KeyboardInterrupt:
        fail("setting up was stopped", "start again and it goes on", STOPPED)
    except OSError as error:
        fail(f"setting up failed: {error}", "mend that, then start again", RETRY)
    if only_setup:
        return
    command = [PYTHON, "-P", "-m", "lorafactory", *args]  # -P: never import from the folder one stands in
    if not WINDOWS:
        os.execv(PYTHON, command)
    import signal
    import subprocess

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the child, which ends in order
    sys.exit(subprocess.call(command))


def ready(kind):
    return os.path.exists(PYTHON) and read(STAMP) in (stamp("dev"), stamp(kind))


def stamp(kind):
    made_from = "\0".join([ROOT, os.path.realpath(PYTHON), UV, read(LOCK), read(PROJECT)])
    return f"{kind} {hashlib.sha256(os.fsencode(made_from)).hexdigest()}"


def set_up(kind):
    before = read(STAMP)
    kind = "dev" if before.startswith("dev") else kind
    backend = torch_backend()
    usable = before != "unfinished" and os.path.exists(PYTHON) and call([PYTHON, "-I", "-c", PROBE]) == 0
    if usable:
        say(f"bringing the environment in {VENV} up to date")
    else:
        make_venv(backend)
    write(STAMP, "unfinished")
    try:
        install(kind, backend)
    except SystemExit:  # uv fetches all before it changes anything: what was there still works
        if usable:
            write(STAMP, before)
        raise
    write(STAMP, stamp(kind))
    say("the environment is ready")


def make_venv(backend):
    import importlib.util
    import shutil

    size = "1.5 GB" if backend == "cpu" or (sys.platform != "linux" and not backend) else "5 GB"
    free = f"{shutil.disk_usage(ROOT).free / 1e9:.0f} GB free"
    say(f"making the environment, about {size}, in {VENV} ({free}); this takes some minutes")
    if not importlib.util.find_spec("ensurepip"):
        package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        fail("this Python cannot make environments", f"type: sudo apt install {package}", NEEDS_YOU)
    step("making the environment", [sys.executable, "-I", "-m", "venv", "--clear", VENV])


def install(kind, backend):
    pip = [PYTHON, "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    step("installing uv", [*pip, f"uv=={UV}"])
    uv = [PYTHON, "-I", "-m", "uv", "pip", "install", "--python", PYTHON, "--directory", ROOT]
    uv += [] if sys.stderr.isatty() else ["--quiet"]
    constraints = LOCK
    if backend:  # a torch for another CUDA brings its own releases of these
        constraints = os.path.join(VENV, "constraints.txt")
        brought = ("cuda-", "nvidia-", "triton")
        write(constraints, "\n".join(x for x in read(LOCK).splitlines() if not x.startswith(brought)))
        uv += ["--torch-backend", backend]
    step("installing the packages", [*uv, "-c", constraints, "-e", ".[dev]" if kind == "dev" else "."])


def torch_backend():
    """Say which torch to get where the index's own would see no GPU: on Windows, and with old drivers."""
    import subprocess

    if os.environ.get("UV_TORCH_BACKEND"):
        return os.environ["UV_TORCH_BACKEND"]
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = int(subprocess.check_output(query, text=True, timeout=30).split(".")[0])
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    return "auto" if WINDOWS or driver < CUDA_DRIVER else ""


def alone():
    """Wait for the lock of whoever sets up. It lies beside the environment, which may be made afresh."""
    import time

    file, said = open(VENV + ".lock", "a+"), False
    # Children hold it too, and it ends with its holders: after a kill, the next start waits for the orphan.
    os.set_inheritable(file.fileno(), True)
    while True:
        try:
            if WINDOWS:
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except OSError as error:
            if not isinstance(error, (BlockingIOError, PermissionError)):
                return file  # a file system without locks
            if not said:
                say("another start is setting up the environment; waiting for it")
            said = True
            time.sleep(0.2)


def step(what, command):
    if call(command):
        fail(f"{what} failed, see above", "check network and free disk, then start again", RETRY)


def call(command):
    import subprocess

    return subprocess.call(command, stdout=sys.stderr, close_fds=False)


def read(path):
    if not os.path.exists(path):
        return ""
    with open(path, encoding="utf-8") as file:
        return file.read()


def write(path, text):
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(path + ".new", path)


def say(text):
    print(f"lora: {text}", file=sys.stderr, flush=True)


def fail(what, advice, code):
    say(f"{what}; {advice}")
    sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
