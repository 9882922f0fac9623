// The official JavaScript clients of MCP, 2.x and 1.x, as an agent's host uses them.
import { createInterface } from 'node:readline'

const lines = createInterface({ input: process.stdin })
const given = JSON.parse((await lines[Symbol.asyncIterator]().next()).value)
const headers = { authorization: `Bearer ${given.token}` }
const options = { requestInit: { headers } }
const name = { name: 'host', version: '1' }

let client, call
if (given.sdk === 1) {
  const { Client } = await import('@modelcontextprotocol/sdk/client/index.js')
  const { StreamableHTTPClientTransport: Transport } = await import(
    '@modelcontextprotocol/sdk/client/streamableHttp.js'
  )
  client = new Client(name)
  await client.connect(new Transport(new URL(given.url), options))
  call = (what, more) => client.callTool(what, undefined, more)
} else {
  const { Client, StreamableHTTPClientTransport: Transport } = await import(
    '@modelcontextprotocol/client'
  )
  client = new Client(name, { versionNegotiation: { mode: given.mode } })
  await client.connect(new Transport(new URL(given.url), options))
  call = (what, more) => client.callTool(what, more)
}

const heard = []
const onprogress = (one) => heard.push(one.message ?? `${one.progress} of ${one.total}`)
const said = async (tool) => {
  const result = await call({ name: tool, arguments: { path: '/a' } }, { onprogress })
  return [result.content[0].text, Boolean(result.isError)]
}
const tools = (await client.listTools()).tools.map((tool) => tool.name)
const read = await said('read_file')
const slow = await said('slow_read')
const steps = [...heard]
const told = { tools, read, slow, steps, held: await said('delete_file') }
told.version = client.getNegotiatedProtocolVersion?.() ?? null
told.refused = await said('format_disk')
await client.close()
console.log(JSON.stringify(told))
process.exit(0)
