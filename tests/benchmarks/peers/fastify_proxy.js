// The peer: @fastify/http-proxy, as its README shows it, with a check of the caller's token and a credential put on.
//
// Arguments: port, file with the settings, caller's token, upstream's token.
const { readFileSync } = require('node:fs')
const { timingSafeEqual } = require('node:crypto')
const fastify = require('fastify')({ logger: false })

const [port, settings, caller, credential] = process.argv.slice(2)
const upstream = JSON.parse(readFileSync(settings, 'utf8')).connections.c0
const expected = Buffer.from(`Bearer ${caller}`)

fastify.register(require('@fastify/http-proxy'), {
  upstream,
  prefix: '/connections/c0/proxy',
  undici: { connections: 1000 },
  preHandler (request, reply, done) {
    const given = Buffer.from(request.headers.authorization ?? '')
    if (given.length !== expected.length || !timingSafeEqual(given, expected)) {
      reply.code(401).send('unknown caller')
      return
    }
    done()
  },
  replyOptions: {
    rewriteRequestHeaders: (request, headers) => ({ ...headers, authorization: `Bearer ${credential}` })
  }
})

fastify.listen({ host: '127.0.0.1', port: Number(port), backlog: 2048 })
