// Prints one line of JSON for each request that a server of Node read.
'use strict'
const crypto = require('node:crypto')
const fs = require('node:fs')

const WATCHED = ['amount', 'to', 'count']

const sha256 = (bytes) => crypto.createHash('sha256').update(bytes).digest('hex')

const print = (report) => fs.writeSync(1, JSON.stringify(report) + '\n')

// The values that a handler may take for the watched names.
function watched (...places) {
  const found = {}
  for (const name of WATCHED) {
    found[name] = places
      .filter((place) => place !== null && typeof place === 'object' && !Array.isArray(place))
      .filter((place) => Object.hasOwn(place, name))
      .map((place) => place[name])
  }
  return found
}

function listen (server) {
  server.listen(0, '127.0.0.1', () => print({ listening: server.address().port }))
}

module.exports = { listen, print, sha256, watched }
