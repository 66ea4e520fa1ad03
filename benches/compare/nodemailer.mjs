// Nodemailer's pool, straight to a mail server. Arguments: the folder of node_modules, host, port, what to do (`rate` or
// `latency`), letters, connections, milliseconds from letter to letter, the file of a letter's text. Prints one line of
// JSON: seconds, for `latency` those of each letter.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";

const [tools, host, port, what, count, connections, gap, file] = process.argv.slice(2);
const nodemailer = createRequire(`${tools}/`)("nodemailer");
const text = readFileSync(file, "utf8");
const transport = nodemailer.createTransport({
  pool: true,
  maxConnections: Number(connections),
  maxMessages: Infinity,
  host,
  port: Number(port),
  secure: false,
  ignoreTLS: true,
});
const letter = (number) => ({
  from: "account0@bench.example",
  to: `reader${number}@customers.example`,
  subject: `Letter ${number}`,
  text,
});

const since = (start) => Number(process.hrtime.bigint() - start) / 1e9;

if (what === "latency") {
  const times = [];
  for (let number = 0; number < Number(count); number += 1) {
    await sleep(Number(gap));
    const start = process.hrtime.bigint();
    await transport.sendMail(letter(number));
    times.push(since(start));
  }
  console.log(JSON.stringify(times));
} else {
  const start = process.hrtime.bigint();
  // Callers as many as sessions, twice, so that none of these has to wait for its next letter.
  let next = 0;
  const caller = async () => {
    while (next < Number(count)) {
      next += 1;
      await transport.sendMail(letter(next));
    }
  };
  await Promise.all(Array.from({ length: 2 * Number(connections) }, caller));
  console.log(JSON.stringify(since(start)));
}
transport.close();
