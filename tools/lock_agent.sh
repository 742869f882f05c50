#!/bin/sh
# Lock the agent's install: every version and the hash of every file, on the oldest Python that devices have,
# with the versions of constraints.txt for what the agent names itself.
set -eu
cd "$(dirname "$0")/.."
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
"$1" -m venv "$room/venv"
"$room/venv/bin/python" -m pip install --quiet pip-tools
"$1" - pyproject.toml > "$room/agent.in" <<'PYTHON'
import re
import sys

text = open(sys.argv[1], encoding="utf-8").read()
agent = re.search(r"^agent = \[(.*?)\]", text, re.DOTALL | re.MULTILINE).group(1)
base = re.search(r"^dependencies = \[(.*?)\]", text, re.DOTALL | re.MULTILINE).group(1)
print("\n".join(re.findall(r'"([^"]+)"', base + agent)))
PYTHON
sed 's/[><=].*//' "$room/agent.in" | while read -r name; do grep -iE "^$name==" constraints.txt; done > "$room/constraints.txt"
{
    echo "# The agent's install, for Python 3.10 and newer, with the hash of every file. Made by \`make lock\`."
    echo "# pip install --require-hashes -r agent/requirements.lock && pip install --no-deps edgewright"
    (
        cd "$room"
        venv/bin/pip-compile --quiet --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links \
            --no-header --no-annotate --constraint constraints.txt --output-file - agent.in
    )
} > "$room/lock"
mv "$room/lock" agent/requirements.lock
