"""What a program that uses docker-py does, checked step by step. Ends with 'all passed'."""
import io
import tarfile

import docker

client = docker.from_env(timeout=60)


def check(name, got, want):
    assert got == want, f"{name}: {got!r}, expected {want!r}"
    print("ok", name)


check("ping", client.ping(), True)
version = client.version()
assert version["ApiVersion"] and version["MinAPIVersion"], version
check("info driver", client.info()["Driver"], "overlay")

check("run", client.containers.run("busybox", ["echo", "hello"], remove=True), b"hello\n")
check("run, both streams", client.containers.run("busybox", ["sh", "-c", "echo o; echo e >&2"], remove=True, stdout=True, stderr=True), b"o\ne\n")
try:
    client.containers.run("busybox", ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
except docker.errors.ContainerError as error:
    check("exit status", (error.exit_status, error.stderr), (3, b"bad\n"))
else:
    raise AssertionError("a failing program raised nothing")

try:
    client.containers.get("nobody")
except docker.errors.NotFound as error:
    check("not found", error.status_code, 404)
else:
    raise AssertionError("no NotFound")

script = "trap 'exit 7' TERM; echo ready; sleep 1000 & wait"
container = client.containers.run("busybox", ["sh", "-c", script], detach=True, name="py", labels={"from": "python"}, environment={"A": "1"})
check("first line", next(container.logs(stream=True, follow=True)), b"ready\n")
container.reload()
check("status", container.status, "running")
check("listed", [c.name for c in client.containers.list(filters={"label": "from=python"})], ["py"])
check("environment", "A=1" in container.attrs["Config"]["Env"], True)
assert any("sleep" in " ".join(process) for process in container.top()["Processes"])
container.pause()
container.reload()
check("paused", container.status, "paused")
container.unpause()
container.rename("py2")
check("renamed", client.containers.get("py2").id, container.id)
container.restart(timeout=5)
container.reload()
check("restarted", container.status, "running")
container.stop(timeout=5)
check("wait", container.wait()["StatusCode"], 7)
check("logs", container.logs(), b"ready\nready\n")
container.remove()
check("removed", client.containers.list(all=True), [])

# A terminal, attached by socket.
container = client.containers.create("busybox", "cat", stdin_open=True, tty=True)
stream = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
container.start()
container.resize(20, 60)
stream._sock.sendall(b"typed\n")
seen = b""
while seen.count(b"typed") < 2:
    part = stream._sock.recv(4096)
    assert part, f"the stream ended after {seen!r}"
    seen += part
stream.close()
container.remove(force=True)
print("ok terminal")

# Images: save, remove, load, tag.
image = client.images.get("busybox")
check("tags", image.tags, ["busybox:latest"])
saved = b"".join(image.save(named=True))
names = tarfile.open(fileobj=io.BytesIO(saved)).getnames()
assert "manifest.json" in names, names
image.tag("copy", "v1")
check("tagged", sorted(client.images.get(image.id).tags), ["busybox:latest", "copy:v1"])
client.images.remove("copy:v1")
check("loaded", client.images.load(saved)[0].id, image.id)
assert image.history()

events = client.events(since=1, until=2, decode=True)
check("no events so long ago", list(events), [])
print("all passed")
