"""A payment service that takes part in order sagas through RabbitMQ, without raysaga.

It follows docs/BROKERS.md with nothing but pika and the standard library: JSON bodies, and a
table of answers in the same SQLite transaction as the effect. Any language can do this.

    pip install pika
    python plain_payment.py amqp://localhost/ payments.sqlite
"""

import json
import sqlite3
import sys
import time

import pika

TABLES = """
create table if not exists answers (key text primary key, state text, answer text);
create table if not exists epochs (scope text primary key, epoch integer);
create table if not exists charges (key text primary key, request text)
"""


def answer(db, call):
    """Return outcome, result, code and whether it is stored; all in one transaction."""
    key = "/".join((call["key"]["journal"], call["key"]["saga_id"], call["key"]["step"]))
    verb = call["verb"]
    newest = db.execute("select epoch from epochs where scope = ?", [call["scope"]]).fetchone()
    if newest and call["epoch"] < newest[0]:
        return "unknown", None, "FENCED", False
    db.execute("replace into epochs values (?, ?)", [call["scope"], call["epoch"]])
    row = db.execute("select state, answer from answers where key = ?", [key]).fetchone()
    state, kept = row or ("nothing", "{}")
    if verb == "release":
        # It may be forgotten now; this small one remembers.
        return "succeeded", {"failed": []}, "", False
    if verb == "question":
        return "succeeded", {"status": state, "result": json.loads(kept)}, "", True
    if verb == "compensation":
        if state == "applied":
            db.execute("delete from charges where key = ?", [key])
        if state in ("applied", "nothing"):
            # Of what never came, this is the tombstone: it is refused when it comes.
            gone = "undone" if row else "tombstone"
            db.execute("replace into answers values (?, ?, '{}')", [key, gone])
        return "succeeded", {}, "", True
    if state == "applied":
        return "succeeded", json.loads(kept), "", True
    if state in ("undone", "tombstone"):
        return "refused", None, "CANCELLED_BEFORE_START", True
    if call["expires_at_ms"] is not None and call["expires_at_ms"] < time.time() * 1_000:
        return "unknown", None, "EXPIRED", False
    result = {"charged": call["key"]["saga_id"]}
    db.execute("insert into charges values (?, ?)", [key, json.dumps(call["request"])])
    db.execute("insert into answers values (?, 'applied', ?)", [key, json.dumps(result)])
    return "succeeded", result, "", True


def main(url, path, queue="raysaga.payment"):
    """Answer calls until the process ends."""
    db = sqlite3.connect(path)
    db.executescript(TABLES)
    channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
    channel.basic_qos(prefetch_count=16)

    def taken(_channel, method, properties, body):
        call = json.loads(body)
        with db:
            outcome, result, code, stored = answer(db, call)
        echoed = {name: call[name] for name in ("call_id", "key", "verb", "epoch", "attempt")}
        said = {"outcome": outcome, "result": result, "code": code, "stored": stored}
        reply = {"type": "raysaga.reply", "version": 1, **echoed, **said}
        kind = pika.BasicProperties(content_type="application/json", type="raysaga.reply")
        channel.basic_publish("", properties.reply_to, json.dumps(reply), kind)
        channel.basic_ack(method.delivery_tag)

    channel.basic_consume(queue, taken)
    print("serving", flush=True)
    channel.start_consuming()


if __name__ == "__main__":
    main(*sys.argv[1:])
