"""Try to log in to database and cache, as the api does, with the passwords of two directories.

Request: api, a container of it; directories by name, each with the secret files. Answer: for each
name, whether the database and whether the cache took its password. Values stay here.
"""

import json
import subprocess
import sys
from pathlib import Path

request = json.loads(sys.argv[1])
PROGRAM = """
import asyncio, asyncpg, json, redis, sys
database, cache = json.load(sys.stdin)
async def ask():
    try:
        where = dict(host="database", user="api", database="stackyard", ssl=False)
        await (await asyncpg.connect(password=database, **where)).close()
        return True
    except asyncpg.InvalidPasswordError:
        return False
taken = asyncio.run(ask())
try:
    options = dict(lib_name=None, lib_version=None, protocol=2)
    redis.Redis("cache", username="api", password=cache, **options).ping()
    print(json.dumps([taken, True]))
except redis.AuthenticationError:
    print(json.dumps([taken, False]))
"""
answer = {}
for name, directory in request["directories"].items():
    passwords = [
        (Path(directory) / file).read_text(encoding="utf-8").strip()
        for file in ("api_database_password", "api_cache_password")
    ]
    done = subprocess.run(
        ["docker", "exec", "-i", request["api"], "python3", "-c", PROGRAM],
        input=json.dumps(passwords),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"cannot try the passwords of {name}: {done.stderr[-300:]}")
    answer[name] = dict(zip(("database", "cache"), json.loads(done.stdout), strict=True))
print(json.dumps(answer))
