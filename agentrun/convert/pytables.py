"""Which calls of which libraries deserve a checkpoint: the tables of `pycalls`, by the names that libraries give them.

sent       something elsewhere is changed, by each call again: what must not happen twice
mail       so does a mail
asked      network that only reads, or may be repeated: it takes time, may cost, may answer differently
paid       a model
command    another program
database   rows are written
files      a file is moved or removed: the second time it is not there
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

What = Literal["sent", "mail", "asked", "paid", "command", "database", "files"]


class Row(NamedTuple):
    """`modules`: a call of them, or of objects that they made, whose last name matches `verbs`."""

    what: What
    modules: frozenset[str]
    verbs: re.Pattern[str]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _row(what: What, modules: str, verbs: str) -> Row:
    return Row(what, _names(modules), re.compile("|".join(verbs.split())))


# The first row that matches decides. A module is its first names: `google.cloud.storage`, or `smtplib`.
TABLE = (
    _row("mail", "smtplib aiosmtplib redmail yagmail resend postmarker flask_mail", "sendmail send send_message"),
    _row("mail", "sendgrid mailjet_rest mailchimp_transactional exchangelib", r"send\w* create post"),
    _row("mail", "django.core.mail", r"send send_mail send_mass_mail mail_admins mail_managers"),
    _row("sent", "twilio plaid paypalrestsdk braintree", "create send sale"),
    _row("sent", "stripe", "create capture pay confirm refund"),
    _row("sent", "slack slack_sdk slackclient", r"chat_postMessage files_upload\w* api_call send"),
    _row("sent", "tweepy", r"update_status\w* create_tweet send_direct_message"),
    _row("sent", "telegram telebot aiogram telethon pyrogram discord", r"send send_\w+ reply\w*"),
    _row("sent", "praw", "submit reply"),
    _row("sent", "github gitlab jira atlassian", r"create create_\w+ add_comment transition_issue"),
    _row("sent", "pika kombu paho", "basic_publish publish"),
    _row("sent", "kafka confluent_kafka aiokafka", "send produce send_and_wait"),
    _row("sent", "google.cloud.pubsub google.cloud.pubsub_v1 google.cloud.tasks_v2", "publish create_task"),
    _row("sent", "apprise pushover pushbullet pywebpush firebase_admin", r"notify send\w* push_\w+ webpush"),
    _row("sent", "gspread", r"append_rows? insert_rows? create"),
    _row("sent", "ccxt facebook_business", r"create_\w*"),
    _row("asked", "gspread", r"open\w* get_\w+ update\w* batch_\w+"),
    _row("asked", "paramiko pysftp fabric fabric2", r"exec_command connect (put|get)(fo|_\w+)? run sudo"),
    _row("asked", "ftplib", r"stor\w+ retr\w+ delete rename"),
    _row("asked", "google.cloud.storage", r"upload_\w+ download_\w+ copy_blob"),
    _row("asked", "google.cloud.bigquery", r"query\w* load_table\w* insert_rows\w*"),
    _row("asked", "minio", "f?put_object f?get_object remove_object"),
    _row("asked", "yfinance feedparser wget ccxt", r"download history parse fetch_\w+"),
    _row("asked", "tweepy", r"search\w* user_timeline home_timeline"),
    _row("asked", "playwright selenium", "goto get"),
    _row(
        "paid",
        "openai anthropic google.generativeai google.genai cohere mistralai groq together litellm ollama replicate"
        " huggingface_hub vertexai zhipuai dashscope langchain_openai langchain_anthropic langchain_community",
        r"a?create parse stream a?generate(_\w+)? edit send_message a?chat(_completion)? complete a?completion"
        r" a?embed(ding|dings)? run a?invoke batch call text_\w+",
    ),
    _row("command", "subprocess", "run call check_call check_output Popen getoutput getstatusoutput"),
    _row("command", "os", r"system popen spawn\w+ exec[lv]\w+ posix_spawnp?"),
    _row("command", "asyncio", "create_subprocess_(exec|shell)"),
    _row("command", "pexpect plumbum invoke commands", "run spawn getoutput"),
)

# A request, not what its answer is asked for: the module, or a session that it made, and the verb.
REQUEST = re.compile(r"[\w.]+(\.(session|create_scraper|build_opener|[A-Z]\w*)\(\))?\.\w+")
HTTP = _names(
    "requests httpx aiohttp urllib3 urllib urllib2 http requests_html cloudscraper curl_cffi niquests treq"
    " requests_oauthlib"
)
ASKS = _names("get head options put delete request stream urlopen urlretrieve ws_connect")

# boto3: what a client, or a resource and the things in it, is asked to do
CLOUD = re.compile(
    r"(?:aio)?boto3(?:\.[sS]ession(?:\.Session)?\(\))?"
    r"\.(?:client\(\)|resource\(\)(?:\.[A-Z]\w*\(\))*(?:\.\w+)?)\.(\w+)"
)
CLOUD_SENDS = re.compile(r"publish|send_|create_|run_|start_|invoke|terminate_|put_events|put_record|post_")
CLOUD_QUIET = _names(
    "get_paginator generate_presigned_url generate_presigned_post get_waiter Table Bucket Object close"
)

# Names that only one library has, where nothing is known of the object.
MODEL_ENDS = re.compile(
    r".*\.(chat\.completions|messages|responses|embeddings|images|audio\.\w+|ChatCompletion)"
    r"\.a?(create|generate|stream|parse)"
)
MONGO = _names(
    "insert_one insert_many update_one update_many replace_one delete_one delete_many bulk_write"
    " find_one_and_update find_one_and_replace find_one_and_delete"
)
ORM = re.compile(r"(?!\?self).*\.objects\b.*\.(create|bulk_create|bulk_update|update|delete)")

DATABASES = _names(
    "sqlite3 psycopg2 psycopg asyncpg pymysql MySQLdb mysql mariadb cx_Oracle oracledb pyodbc pymssql"
    " sqlalchemy sqlmodel flask_sqlalchemy aiosqlite duckdb peewee snowflake databases"
)
WRITES = re.compile(
    r"\s*(?:--[^\n]*\n\s*)*(?:WITH\b[\s\S]*\b)?(INSERT|UPDATE|DELETE|REPLACE|MERGE|DROP|ALTER|TRUNCATE|COPY|CALL|VACUUM"
    r"|REFRESH|CREATE)\b",
    re.IGNORECASE,
)
HARMLESS_SQL = re.compile(r"IF (NOT )?EXISTS|OR IGNORE|OR REPLACE|ON CONFLICT|ON DUPLICATE KEY", re.IGNORECASE)

# Commands that only look, or do nothing the second time.
LOOKING = re.compile(
    r"(?:/usr)?(?:/s?bin/)?(?:git (?:rev-parse|log|status|diff|show|describe|config|branch|remote|ls-files)|(?:hostname"
    r"|date|uname|ls|which|whoami|id|cat|df|du|ps|pgrep|pidof|uptime|free|nproc|clear|cls|tput|stty|wc|head|tail|grep"
    r"|file|stat|lscpu|lsblk|ifconfig|iwgetid|nvidia-smi|vcgencmd|ping|echo|printf|true|sleep|locale|mkdir -p))(?:\s|$)"
)
REMOVES = _names("os.remove os.unlink os.rmdir os.removedirs shutil.rmtree pathlib.Path().unlink pathlib.Path().rmdir")
MOVES = _names("shutil.move os.rename os.renames pathlib.Path().rename")
EXISTS = re.compile(r"\b(exists|isfile|isdir|is_file|is_dir|lexists)\b")
BEARS = _names("FileNotFoundError OSError IOError Exception EnvironmentError")
