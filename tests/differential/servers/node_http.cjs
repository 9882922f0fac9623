// Node's own http, URL, URLSearchParams and JSON, as a small service uses them.
'use strict'
const http = require('node:http')
const { listen, print, sha256, watched } = require('./report.cjs')

const server = http.createServer((request, response) => {
  const pieces = []
  request.on('data', (piece) => pieces.push(piece))
  request.on('end', () => {
    const body = Buffer.concat(pieces)
    let report
    try {
      report = read(request, body)
    } catch (error) {
      report = { port: request.socket.remotePort, headers: request.headers, error: String(error) }
    }
    print(report)
    response.statusCode = report.error ? 400 : 200
    response.end('read')
  })
})

function read (request, body) {
  const url = new URL(request.url, 'http://service.test')
  const type = (request.headers['content-type'] ?? '').split(';')[0].trim().toLowerCase()
  let kind = null
  let json = null
  let form = null
  if (body.length > 0 && (type === 'application/json' || type.endsWith('+json'))) {
    kind = 'json'
    json = JSON.parse(body.toString('utf8'))
  } else if (body.length > 0 && type === 'application/x-www-form-urlencoded') {
    kind = 'form'
    form = [...new URLSearchParams(body.toString('utf8'))]
  }
  return {
    port: request.socket.remotePort,
    method: request.method,
    path: decodeURIComponent(url.pathname),
    query: [...url.searchParams],
    headers: request.headers,
    length: body.length,
    sha256: sha256(body),
    kind,
    json,
    form,
    files: [],
    watched: watched(Object.fromEntries(url.searchParams), json, form && Object.fromEntries(form)),
    error: null
  }
}

listen(server)
