# Rack on Puma: Rack::MethodOverride, Rack::Request's GET, POST and params.
require "digest"
require "json"
require "puma"
require "puma/server"
require "rack"
require "rack/method_override"

$stdout.sync = true
WATCHED = %w[amount to count].freeze
# JSON of Ruby refuses bytes that are not UTF-8; a report shows them replaced.
CLEAN = lambda do |value|
  case value
  when Hash then value.to_h { |k, v| [CLEAN.(k.to_s), CLEAN.(v)] }
  when Array then value.map(&CLEAN)
  when String then value.dup.force_encoding("UTF-8").scrub
  else value
  end
end

def emit(report)
  $stdout.write(JSON.generate(CLEAN.(report)) + "\n")
end

def headers_of(env)
  found = env.select { |key, _| key.start_with?("HTTP_") && key != "HTTP_VERSION" }
             .to_h { |key, value| [key.delete_prefix("HTTP_").tr("_", "-").downcase, value] }
  found["content-type"] = env["CONTENT_TYPE"] if env["CONTENT_TYPE"]
  found["content-length"] = env["CONTENT_LENGTH"] if env["CONTENT_LENGTH"]
  found
end

def split_files(fields)
  files, form = fields.partition { |_, value| value.is_a?(Hash) && value.key?(:tempfile) }
  stated = files.map do |name, file|
    content = file[:tempfile].read
    [name, file[:filename], file[:type].to_s, content.bytesize, Digest::SHA256.hexdigest(content)]
  end
  [form.to_h, stated]
end

def read(env)
  request = Rack::Request.new(env)
  env["rack.input"]&.rewind
  raw = env["rack.input"]&.read.to_s
  env["rack.input"]&.rewind
  kind = form = document = nil
  files = []
  if !raw.empty? && (request.media_type == "application/json" || request.media_type.to_s.end_with?("+json"))
    kind, document = "json", JSON.parse(raw)
  elsif !raw.empty? && (request.form_data? || request.parseable_data?)
    kind = request.media_type == "multipart/form-data" ? "multipart" : "form"
    form, files = split_files(request.POST)
  end
  places = [request.params, document].grep(Hash)
  watched = WATCHED.to_h { |name| [name, places.select { |p| p.key?(name) }.map { |p| p[name] }] }
  {
    method: request.request_method, path: Rack::Utils.unescape_path(request.path),
    query: request.GET, length: raw.bytesize, sha256: Digest::SHA256.hexdigest(raw),
    kind: kind, json: document, form: form || {}, files: files, watched: watched, error: nil
  }
end

reading = lambda do |env|
  report = begin
    read(env)
  rescue StandardError => e
    { error: "#{e.class}: #{e.message}" }
  end
  emit(report.merge(port: env["puma.socket"].peeraddr[1], headers: headers_of(env)))
  [report[:error] ? 400 : 200, { "content-type" => "text/plain" }, ["read"]]
end

# Its input is read before Rack's own middleware, and rewound.
rewindable = lambda do |env|
  env["rack.input"] = StringIO.new(env["rack.input"].read) if env["rack.input"]
  Rack::MethodOverride.new(reading).call(env)
end

server = Puma::Server.new(rewindable, nil, min_threads: 2, max_threads: 4)
listener = server.add_tcp_listener("127.0.0.1", 0)
emit(listening: listener.addr[1])
server.run(false)
