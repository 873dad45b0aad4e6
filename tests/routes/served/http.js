// The misbehaving upstream on Node's http module: plays the script of the model asked for.
"use strict";
const fs = require("fs");
const http = require("http");

const scripts = JSON.parse(fs.readFileSync(process.env.ROUTES_SCRIPTS));
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const gone = (response) =>
  Promise.race([new Promise((resolve) => response.once("close", resolve)), pause(10000)]);

async function play(request, response, body) {
  const asked = JSON.parse(body);
  const line = { path: request.url, model: asked.model, bytes: body.length, stream: asked.stream ?? null };
  line.stream_options = asked.stream_options ?? null;
  fs.appendFileSync(process.env.ROUTES_JOURNAL, JSON.stringify(line) + "\n");
  const script = scripts[asked.model];
  if (script.end === "silent") return gone(response);
  const headers = { "Content-Type": script.content_type };
  if (script.length !== null) headers["Content-Length"] = script.length;
  response.writeHead(script.status, headers);
  for (const piece of script.writes) {
    response.write(Buffer.from(piece, "base64"));
    if (script.pause_ms) await pause(script.pause_ms);
  }
  if (script.end === "wait") return gone(response);
  if (script.end === "fin") return response.socket.end();
  if (script.end === "reset") return response.socket.resetAndDestroy();
  response.end();
}

const server = http.createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    if (request.method === "GET") return response.end("ok");
    play(request, response, Buffer.concat(parts)).catch((error) => {
      console.error(error);
      response.destroy();
    });
  });
});
server.listen(Number(process.env.ROUTES_PORT), process.env.ROUTES_HOST);
