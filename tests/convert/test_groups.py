"""Pieces put together as a reader would: scripts, and the steps as the statements in each."""

from __future__ import annotations

import pytest

from agentrun.convert.groups import grouped
from agentrun.convert.outside import effects
from agentrun.convert.program import Dialect, Program
from agentrun.convert.statements import cut


def groups(source: str, dialect: Dialect = "bash") -> list[str]:
    """The lines of each group, joined by `|`; empty lines and comments left out."""
    program = Program(source, dialect)
    found = []
    for group in grouped(program, cut(program, lambda path: None).pieces):
        lines = program.lines[group.first - 1 : group.last]
        found.append("|".join(line for line in lines if line.strip() and not line.startswith("#")))
    return found


GROUPS = [
    # what only prepares goes with what it prepares
    ("A=1\nB=2\ntar c x\n", ["A=1|B=2|tar c x"]),
    ("A=1\n\ntar c x\nrsync x y\n", ["A=1|tar c x", "rsync x y"]),
    ("set -e\nA=1\nB=2\n\ntar c x\n", ["set -e|A=1|B=2", "tar c x"]),
    ("A=1\nB=2\nC=3\n\ncd x\ntar c x\n", ["A=1|B=2|C=3", "cd x|tar c x"]),
    ("echo begin\ntar c x\necho next\nrsync x y\n", ["echo begin|tar c x", "echo next|rsync x y"]),
    ("tar c x\necho end\n\nrsync x y\n", ["tar c x|echo end", "rsync x y"]),
    ("tar c x\n\necho done\nrsync x y\n", ["tar c x|echo done", "rsync x y"]),
    ("tar c x\nexit 0\n", ["tar c x|exit 0"]),
    ("mkdir -p a\ntar c x\n", ["mkdir -p a|tar c x"]),
    ("[ -d a ] || exit 1\ntar c x\n", ["[ -d a ] || exit 1|tar c x"]),
    ("if [ $# -lt 1 ]; then echo usage; exit 1; fi\ntar c x\n",
     ["if [ $# -lt 1 ]; then echo usage; exit 1; fi|tar c x"]),
    ("log() { echo \"$1\"; }\nlog begin\ntar c x\nlog end\n", ["log() { echo \"$1\"; }", "log begin|tar c x|log end"]),
    # never two deeds
    ("tar c x\nrsync x y\nscp x z:\n", ["tar c x", "rsync x y", "scp x z:"]),
    ("A=$(curl x)\nB=$(date)\ntar c x\n", ["A=$(curl x)", "B=$(date)|tar c x"]),
    ("f() { tar c x; }\nf\nf\n", ["f() { tar c x; }", "f", "f"]),
    ("A=1\nB=$(x)\necho mailing\nmail a <$B\necho sent\nC=1\ntar c x\n",
     ["A=1|B=$(x)", "echo mailing|mail a <$B|echo sent", "C=1|tar c x"]),
    ("echo mailing\nmail a <b\n[ -s b ]\n", ["echo mailing|mail a <b|[ -s b ]"]),
    ("x | mail -s a b\ntar c x\n", ["x | mail -s a b", "tar c x"]),
    ("sleep 5 &\ntar c x\n", ["sleep 5 &", "tar c x"]),
    ("find a -print\nfind a -delete\nfind b -delete\n", ["find a -print|find a -delete|find b -delete"]),
    # what can be done any number of times may stand together, with what it tidies up for
    ("rm -f a\nrm -f b\ntar c x\n", ["rm -f a|rm -f b|tar c x"]),
    ("rm -f a\nchmod 600 b\n\ntar c x\n", ["rm -f a|chmod 600 b", "tar c x"]),
    ("df -h >>r\nuptime >>r\nmail x <r\n", ["df -h >>r|uptime >>r", "mail x <r"]),
    ("sed -i s/a/b/ c\nsed -i s/b/c/ d\n", ["sed -i s/a/b/ c|sed -i s/b/c/ d"]),
    # what finishes a deed, and looks at what came of it
    ("dump >$F.part\nmv $F.part $F\nrsync a b\n", ["dump >$F.part|mv $F.part $F", "rsync a b"]),
    ("dump -o \"$F.part\" x\nmv \"$F.part\" $F\nchmod 600 $F\n",
     ["dump -o \"$F.part\" x|mv \"$F.part\" $F|chmod 600 $F"]),
    ("tar x a\nmv a b\n", ["tar x a", "mv a b"]),
    ("dump >x\nS=$(stat x)\nif [ $S -lt 9 ]; then false; fi\n\nrsync a b\n",
     ["dump >x|S=$(stat x)|if [ $S -lt 9 ]; then false; fi", "rsync a b"]),
    ("tar c x\nrm -f x\n\nrsync a b\n", ["tar c x", "rm -f x", "rsync a b"]),
    # a heading belongs to what follows
    ("tar c x\n\necho next\n\nrsync a b\n", ["tar c x", "echo next|rsync a b"]),
    ("A=1\nB=2\nC=3\n\necho next\nD=4\n\nrsync a b\n", ["A=1|B=2|C=3", "echo next|D=4|rsync a b"]),
    ("tar c x\necho copying...\n\nrsync a b\n", ["tar c x", "echo copying...|rsync a b"]),
    ("echo Cache\n\nfind a -delete\nfind b -exec rm {} +\nfind c | xargs rm\n",
     ["echo Cache|find a -delete|find b -exec rm {} +|find c | xargs rm"]),
    # preparation is one
    ("set -e\n\nA=1\n\nB=2\n\n# check\n[ -d a ] || exit\n\n# deed\ntar c x\n",
     ["set -e|A=1|B=2|[ -d a ] || exit", "tar c x"]),
    (". ./a.env\n. /etc/b\nsource lib/c.sh\nA=$B.sql.gz\n\ntar c x\n",
     [". ./a.env|. /etc/b|source lib/c.sh|A=$B.sql.gz", "tar c x"]),
    # an end that only says so
    ("tar c x\n\necho end\n", ["tar c x|echo end"]),
    ("tar c x\n\nA=1\nB=2\necho $A\n", ["tar c x", "A=1|B=2|echo $A"]),
]  # fmt: skip


@pytest.mark.parametrize(("source", "expected"), GROUPS)
def test_groups(source: str, expected: list[str]) -> None:
    assert groups(source) == expected


def test_functions_that_are_handed_on_as_text_stand_alone() -> None:
    source = "set -e\nf() { a; }\n\ng() { b; }\nA=1\nf\nh() { c; }\ng\n"
    expected = ["set -e", "f() { a; }|g() { b; }", "A=1|f", "h() { c; }", "g"]
    assert groups(source, "sh") == groups(source) == expected
    assert groups("eval \"$x\"\n" + source)[1:] == expected[1:]


def test_a_long_preparation_is_divided_at_a_paragraph() -> None:
    source = "".join(f"A{number}=1\n" for number in range(70)) + "\n# more\nB=2\nC=3\nD=4\n\ntar c x\n"
    assert [len(group.split("|")) for group in groups(source)] == [70, 3, 1]


OUTSIDE = [
    ("echo x | mail -s a b@c", "sends mail"), ("mail -s a b <f", "sends mail"),
    ("/usr/sbin/sendmail -t <f", "sends mail"),
    ("sudo -u x mutt -s a b", "sends mail"), ("timeout 5 nice -n 3 msmtp a", "sends mail"), ("mail -e", ""),
    ("curl -X POST x.org/a", "sends a POST request"), ("curl -sXPOST x.org", "sends a POST request"),
    ("curl --request POST x.org", "sends a POST request"), ("curl -fsS -d a=b x.org", "sends a POST request"),
    ("curl -F f=@g x.org", "sends a POST request"), ("curl --data-binary @f x.org", "sends a POST request"),
    ("curl --json '{}' x.org", "sends a POST request"), ("curl x.org -o f", ""), ("curl -G -d a=b x.org", ""),
    ("curl -X DELETE x.org", ""), ("curl -X PUT -d a x.org", ""), ("curl -fsS https://hc-ping.com/x", ""),
    ("curl -d a=b https://hooks.slack.com/services/x", "sends a message"),
    ("curl \"https://api.telegram.org/bot$T/sendMessage?text=a\"", "sends a message"),
    ("curl https://api.stripe.com/v1/charges -d amount=1", "may move money"),
    ("curl --url smtps://a:465 --mail-from b --mail-rcpt c -T d", "sends mail"),
    ("wget -q --post-data=a x.org", "sends a POST request"), ("wget x.org", ""),
    ("aws sns publish --topic-arn a", "sends a message"), ("aws --region b ses send-email", "sends mail"),
    ("aws s3 sync a s3://b", ""), ("aws ec2 create-snapshot --volume-id a", "makes a snapshot"),
    ("gh release create v1", "publishes"), ("gh pr list", ""), ("git push", ""), ("rsync -a b c:", ""),
    ("npm publish", "publishes"), ("npm ci", ""), ("psql -c 'INSERT INTO a VALUES (1)'", "adds rows to a database"),
    ("psql -c 'SELECT 1'", ""), ("shutdown -h now", "stops the machine"), ("echo mail", ""), ("logger mail", ""),
    ("f() { mail a <b; }; f", "sends mail"), ("f() { mail a <b; }", ""),
    ("die() { echo a | mail b; exit 1; }; x || die", ""),
    ("api() { curl -f \"$@\"; }; api -X POST x.org", "sends a POST request"),
    ("api() { curl -f \"$@\"; }; api x.org", ""),
    ("api() { curl -f \"$@\"; }; if a; then b; else for i in 1; do api --data=x x.org || exit; done; fi",
     "sends a POST request"),
    ("api() { curl \"$@\"; }; post() { api -X POST \"$@\"; }; post x.org", "sends a POST request"),
    ("run() { echo \"$@\"; \"$@\"; }; run tar c x; run mail -s a b", "sends mail"),
    ("try() { n=$1; shift; \"$@\" || sleep \"$n\"; }; try 3 /usr/sbin/sendmail a <b", "sends mail"),
    ("f() { f \"$@\" x; }; f a", ""), ("f() { g \"$@\"; }; g() { f -x \"$@\" a; }; f -X POST", ""),
    ("echo a >/dev/tcp/b/25", "sends a message"), ("set -e; echo '>/dev/tcp/a/1'", ""),
]  # fmt: skip


@pytest.mark.parametrize(("line", "what"), OUTSIDE)
def test_what_must_not_happen_twice(line: str, what: str) -> None:
    program = Program(line + "\n", "bash")
    nodes = [node for node in program.root.children if node.type not in ("comment", ";")]
    assert list(effects(program, nodes)) == ([what] if what else [])
