// Azurite, for as long as standard input is open: its blob service on a free port, with the container `suite`. Says
// where it is, and the account's key.
'use strict';
const crypto = require('crypto');
const { spawn } = require('child_process');
const http = require('http');

const main = process.argv.at(-1);
const account = 'devstoreaccount1';
// Any will do: the server is told.
const key = crypto.randomBytes(64).toString('base64');

const words = [main, '--blobHost', '127.0.0.1', '--blobPort', '0', '--inMemoryPersistence', '--disableTelemetry',
  '--skipApiVersionCheck'];
const server = spawn(process.execPath, words, {
  env: { ...process.env, AZURITE_ACCOUNTS: `${account}:${key}` }, stdio: ['ignore', 'pipe', 'inherit'],
});
const end = () => { server.kill('SIGKILL'); process.exit(); };
process.stdin.on('end', end).on('error', end).resume();
server.on('exit', () => process.exit(1));

function makeContainer(port) {
  const date = new Date().toUTCString();
  const version = '2021-12-02';
  const path = `/${account}/suite`;
  const text = ['PUT', '', '', '', '', '', '', '', '', '', '', '',
    `x-ms-date:${date}`, `x-ms-version:${version}`, `/${account}${path}`, 'restype:container'].join('\n');
  const signature = crypto.createHmac('sha256', Buffer.from(key, 'base64')).update(text, 'utf8').digest('base64');
  const headers = { 'x-ms-date': date, 'x-ms-version': version, Authorization: `SharedKey ${account}:${signature}`, 'Content-Length': 0 };
  http.request({ host: '127.0.0.1', port, method: 'PUT', path: `${path}?restype=container`, headers }, (answer) => {
    let said = '';
    answer.on('data', (data) => { said += data; }).on('end', () => {
      if (answer.statusCode !== 201) {
        console.error(answer.statusCode, said);
        end();
      }
      console.log('serving', `127.0.0.1:${port}`, account, key);
    });
  }).end();
}

let told = '';
let port = null;
server.stdout.on('data', (data) => {
  if (port) return;
  told += data;
  port = /successfully listens on [^\n]*:(\d+)/.exec(told);
  if (port) makeContainer(Number(port[1]));
});
