"""A container engine of the project's own, on a private socket: for a machine that has none.

Its bridge, addresses, containerd namespaces and folders are its own too, so it lives beside any other engine.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from trainshed import files, owner, settings
from trainshed.errors import ToolMissing
from trainshed.local import daemons, debian, state
from trainshed.tools import process

DEFAULT_SOCKET = Path("/var/run/docker.sock")
_PROBE_SECONDS = 10.0
_SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
_NETWORKS = ipaddress.IPv4Network("10.208.0.0/12")
_INSTEAD = "Install and start Docker Engine, or name a reachable one in DOCKER_HOST."


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket file."""

    def __init__(self, file: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._file = file

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._file))


def answers(file: Path, *, timeout: float = _PROBE_SECONDS) -> bool:
    """Tell whether an engine answers behind a socket file.

    Raises:
        PermissionError: there is one, but this user may not use it.
    """
    return _asked(file, "GET", "/_ping", timeout=timeout) is not None


def _asked(file: Path, method: str, path: str, *, timeout: float = _PROBE_SECONDS) -> bytes | None:
    """Return the engine's answer, None when there is none or it is an error."""
    connection = _UnixConnection(file, timeout)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        content = response.read()
    except PermissionError:
        raise
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return content if response.status < http.client.BAD_REQUEST else None


def reachable(default: Path = DEFAULT_SOCKET) -> str | None:
    """Return the address of an engine that this machine offers: ``DOCKER_HOST`` as it stands, else the default socket if it answers.

    Raises:
        ToolMissing: there is one, but this user may not use it.
    """
    named = settings.docker_host()
    if named is not None:
        return named
    try:
        return f"unix://{default}" if default.exists() and answers(default) else None
    except PermissionError as error:
        next_step = "Add the user to the group docker and log in again, or name another engine in DOCKER_HOST."
        raise ToolMissing(f"{default}: this user may not use the container engine", next_step=next_step) from error


def listens(host: str) -> bool:
    """Tell whether somebody listens at an address as in ``DOCKER_HOST``; one that is no socket file or TCP port counts as such."""
    scheme, _, place = host.partition("://")
    if scheme == "unix":
        return answers(Path(place))
    name, _, port = place.rstrip("/").rpartition(":")
    if scheme != "tcp" or not port.isdigit():
        return True
    try:
        socket.create_connection((name, int(port)), timeout=_PROBE_SECONDS).close()
    except OSError:
        return False
    return True


class PrivateEngine:
    """The engine of one state folder; images and containers lie in ``folder/data``."""

    def __init__(self, folder: Path, *, notify: Callable[[str], None] = lambda _line: None) -> None:
        self.folder = folder.resolve()
        self.notify = notify
        self.run_folder = state.run_folder(self.folder)
        self._digest = state.digest(self.folder)
        self.bridge = f"tshed-{self._digest}"

    @property
    def host(self) -> str:
        """Return the address, as ``DOCKER_HOST`` takes it."""
        return f"unix://{self.run_folder / 'docker.sock'}"

    @property
    def daemon(self) -> daemons.Daemon:
        """Describe the server; asking for it starts nothing."""
        return daemons.Daemon(
            name="engine",
            folder=self.folder,
            command=lambda _port: self._command(),
            ready=lambda _port: answers(self.run_folder / "docker.sock"),
            preferred=None,
            version="1",  # containers run on it: a new packet size or another PATH is no reason to end them
            environment={"PATH": f"{settings.search_path()}:{_SYSTEM_FOLDERS}"},
            prepare=lambda _port: self._prepare(),
            cleanup=self._cleanup,
        )

    def ensure(self) -> str:
        """Return the address of the running engine; it is installed and started when needed.

        Raises:
            ToolMissing: it cannot be installed or run here.
            RemoteError: it did not start.
        """
        for name, package in (("dockerd", "docker.io"), ("iptables", "iptables"), ("ip", "iproute2")):
            debian.program(name, package, log=self.folder / "install.log", notify=self.notify, instead=_INSTEAD)
        if os.geteuid() != 0:
            raise ToolMissing("no container engine is reachable, and only root can start one", next_step=_INSTEAD)
        self.daemon.ensure(on_start=lambda: self.notify(f"starting a container engine under {self.folder}"))
        return self.host

    def end(self) -> bool:
        """End the engine with all of its containers; leave no process, mount or bridge. Tell whether it ran."""
        if self.daemon.running() is not None:
            self._kill_containers()
        return self.daemon.end()

    def _kill_containers(self) -> None:
        """Kill what runs, or the engine would wait ten seconds for each container that ignores SIGTERM."""
        file = self.run_folder / "docker.sock"
        for container in json.loads(_asked(file, "GET", "/containers/json") or b"[]"):
            _asked(file, "POST", f"/containers/{container['Id']}/kill")

    def _command(self) -> list[str]:
        dockerd = debian.find("dockerd") or "dockerd"
        namespace = f"trainshed-{self._digest}"
        return [
            dockerd,
            f"--data-root={self.folder / 'data'}",
            f"--exec-root={self.run_folder / 'exec'}",
            f"--pidfile={self.run_folder / 'dockerd.pid'}",
            f"--host={self.host}",
            f"--bridge={self.bridge}",
            f"--containerd-namespace={namespace}",
            f"--containerd-plugins-namespace={namespace}-plugins",
            "--shutdown-timeout=2",
            "--log-level=warn",
            f"--mtu={_mtu()}",
            f"--config-file={self.folder / 'engine.json'}",  # not the machine's own: it may belong to another engine
        ]

    def _prepare(self) -> None:
        self.run_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.make_foreign(self.folder / "data")
        files.write_json(self.folder / "engine.json", {})
        self._make_bridge()

    def _make_bridge(self) -> None:
        """Make the bridge by hand: dockerd makes only ``docker0``, which another engine may own.

        The hardware address is set, or it would change with each container that comes and goes, and connections would stall.
        """
        if Path("/sys/class/net", self.bridge).exists():
            return
        number = bytes.fromhex(self._digest)
        hardware = ":".join(f"{part:02x}" for part in (0x02, 0x42, *number))
        ip = debian.find("ip") or "ip"
        process.run([ip, "link", "add", "name", self.bridge, "address", hardware, "type", "bridge"], timeout=30)
        process.run([ip, "address", "add", str(_free_network(self._digest)), "dev", self.bridge], timeout=30)
        process.run([ip, "link", "set", self.bridge, "up"], timeout=30)

    def _cleanup(self) -> None:
        # Killed rather than asked to end, an engine leaves its shims and, below them, the containers.
        daemons.end_all(_family(str(self.run_folder / "exec")), grace=2.0)
        state.unmount(self.run_folder)
        state.unmount(self.folder)
        if Path("/sys/class/net", self.bridge).exists():
            self._remove_rules()
            process.run([debian.find("ip") or "ip", "link", "delete", self.bridge], check=False, timeout=30)
        shutil.rmtree(self.run_folder, ignore_errors=True)

    def _remove_rules(self) -> None:
        """Remove the firewall rules that name our bridge: dockerd leaves them when it ends."""
        iptables = debian.find("iptables") or "iptables"
        for table in ("nat", "filter"):
            for line in process.run([iptables, "--wait", "-t", table, "-S"], check=False, timeout=30).output.splitlines():
                words = line.split()
                if words[0] == "-A" and self.bridge in words:
                    process.run([iptables, "--wait", "-t", table, "-D", *words[1:]], check=False, timeout=30)


def _family(place: str) -> dict[int, str]:
    """Return the processes, with their starts, whose command line names a place, and all of their descendants."""
    parents: dict[int, int] = {}
    family = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            parents[int(entry.name)] = int((entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
        except OSError:
            continue
        if place.encode() in command and int(entry.name) != os.getpid():
            family.append(int(entry.name))
    for pid in family:  # grows while it is walked
        family += [child for child, parent in parents.items() if parent == pid and child not in family]
    return {pid: start for pid in family if (start := owner.start_time(pid)) is not None}


def _mtu() -> int:
    """Return the packet size of the way out, which containers must not exceed: 1500 where there is none."""
    way_out = next((interface for interface, network in _routes() if network.prefixlen == 0), None)
    try:
        return int(Path("/sys/class/net", way_out or "lo", "mtu").read_text(encoding="ascii")) if way_out else 1500
    except (OSError, ValueError):
        return 1500


def _routes(table: Path = Path("/proc/net/route")) -> Iterator[tuple[str, ipaddress.IPv4Network]]:
    """Yield the interface and the network of each route of this machine."""
    for line in table.read_text(encoding="ascii").splitlines()[1:]:
        interface, destination, _, _, _, _, _, mask = line.split()[:8]
        address, bits = (ipaddress.IPv4Address(int.from_bytes(bytes.fromhex(field), "little")) for field in (destination, mask))
        yield interface, ipaddress.IPv4Network(f"{address}/{bits}", strict=False)


def _free_network(key: str) -> ipaddress.IPv4Interface:
    """Return the first address of a small private network that no route of this machine touches; ``key`` picks where to begin.

    Raises:
        ToolMissing: all of them are taken.
    """
    taken = [network for _, network in _routes() if network.prefixlen > 0]
    for offset in range(_NETWORKS.num_addresses // 256):
        first = int(_NETWORKS.network_address) + (int(key, 16) + offset) * 256 % _NETWORKS.num_addresses
        network = ipaddress.IPv4Network((first, 24))
        if not any(network.overlaps(other) for other in taken):
            return ipaddress.IPv4Interface((first + 1, 24))
    raise ToolMissing(f"no free network in {_NETWORKS} for the containers", next_step="Name a reachable engine in DOCKER_HOST.")
