// Express with body-parser, method-override and busboy, each as its README says.
'use strict'
const busboy = require('busboy')
const bodyParser = require('body-parser')
const express = require('express')
const methodOverride = require('method-override')
const { listen, print, sha256, watched } = require('./report.cjs')

const app = express()
app.set('query parser', 'extended')

function keep (request, _, body) { request.raw = body }

app.use((request, _, next) => { request.raw = Buffer.alloc(0); next() })
app.use(bodyParser.json({ type: ['application/json', 'application/*+json'], strict: false, verify: keep, limit: '2mb' }))
app.use(bodyParser.urlencoded({ extended: true, verify: keep, limit: '2mb' }))
app.use(bodyParser.raw({ type: (request) => !/^multipart\//i.test(request.headers['content-type'] ?? ''), verify: keep, limit: '2mb' }))
app.use(multipart)
for (const name of ['X-HTTP-Method', 'X-HTTP-Method-Override', 'X-Method-Override', '_method']) {
  app.use(methodOverride(name, { methods: null }))
}
app.use(methodOverride((request) => typeof request.body === 'object' ? request.body?._method : undefined, { methods: null }))

function multipart (request, _, next) {
  if (!request.is('multipart/form-data')) return next()
  const parts = []
  const files = []
  const reader = busboy({ headers: request.headers, preservePath: true, defParamCharset: 'utf8' })
  reader.on('field', (name, value) => parts.push([name, value]))
  reader.on('file', (name, stream, info) => {
    const pieces = []
    stream.on('data', (piece) => pieces.push(piece))
    stream.on('end', () => {
      const content = Buffer.concat(pieces)
      files.push([name, info.filename ?? '', info.mimeType, content.length, sha256(content)])
    })
  })
  reader.on('close', () => { request.parts = parts; request.files = files; next() })
  reader.on('error', next)
  const pieces = []
  request.on('data', (piece) => pieces.push(piece))
  request.on('end', () => { request.raw = Buffer.concat(pieces) })
  request.pipe(reader)
}

function report (request, error) {
  const json = request.is(['application/json', 'application/*+json'])
  const form = request.is('application/x-www-form-urlencoded')
  const fields = request.parts && Object.fromEntries(request.parts)
  return {
    port: request.socket.remotePort,
    method: request.method,
    path: decodeURIComponent(request.path),
    query: request.query,
    headers: request.headers,
    length: request.raw.length,
    sha256: sha256(request.raw),
    kind: request.raw.length === 0 ? null : json ? 'json' : form ? 'form' : request.parts ? 'multipart' : null,
    json: json ? request.body : null,
    form: form ? request.body : request.parts ?? null,
    files: request.files ?? [],
    watched: watched(request.query, json || form ? request.body : fields),
    error
  }
}

app.get('/gets/:name', (request, response) => {
  print({ ...report(request, null), handler: request.route.path })
  response.end('read')
})
app.use((request, response) => {
  print(report(request, null))
  response.end('read')
})
app.use((error, request, response, next) => {
  print({ ...report(request, String(error)), port: request.socket.remotePort })
  response.status(400).end('unread')
})

listen(require('node:http').createServer(app))
