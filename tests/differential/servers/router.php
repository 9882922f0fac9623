<?php
// PHP's own reading, with the rules of Symfony and Laravel for methods and JSON.
function fields_of(array $found): object
{
    return (object) $found;
}

function files_of(array $uploads): array
{
    $files = [];
    foreach ($uploads as $name => $one) {
        $names = is_array($one['name']) ? $one['name'] : [$one['name']];
        array_walk_recursive($names, function ($file, $key) use (&$files, $name) {
            $files[] = [(string) $name, $file];
        });
        $paths = is_array($one['tmp_name']) ? $one['tmp_name'] : [$one['tmp_name']];
        $at = count($files) - count($paths, COUNT_RECURSIVE);
        array_walk_recursive($paths, function ($path) use (&$files, &$at) {
            $content = $path === '' ? '' : file_get_contents($path);
            array_push($files[$at++], '', strlen($content), hash('sha256', $content));
        });
    }
    return $files;
}

$raw = file_get_contents('php://input');
$type = $_SERVER['CONTENT_TYPE'] ?? $_SERVER['HTTP_CONTENT_TYPE'] ?? '';
$method = $_SERVER['REQUEST_METHOD'];
$error = null;
$kind = null;
$json = null;
// Illuminate\Http\Concerns\InteractsWithContentTypes::isJson
if ($raw !== '' && (str_contains($type, '/json') || str_contains($type, '+json'))) {
    $kind = 'json';
    $json = json_decode($raw, false, 512);
    $error = json_last_error() === JSON_ERROR_NONE ? null : json_last_error_msg();
} elseif (str_starts_with(strtolower($type), 'multipart/form-data')) {
    $kind = $method === 'POST' ? 'multipart' : null;
} elseif ($raw !== '' && str_starts_with(strtolower($type), 'application/x-www-form-urlencoded')) {
    $kind = 'form';
    if ($method !== 'POST') {
        parse_str($raw, $_POST); // Symfony's Request::createFromGlobals
    }
}
// Symfony's Request::getMethod with enableHttpMethodParameterOverride.
if ($method === 'POST') {
    $inside = is_object($json) ? ($json->_method ?? null) : null;
    $other = $_SERVER['HTTP_X_HTTP_METHOD_OVERRIDE'] ?? $_POST['_method'] ?? $_GET['_method'] ?? $inside;
    $method = is_string($other) && $other !== '' ? strtoupper($other) : $method;
}
$watched = [];
foreach (['amount', 'to', 'count'] as $name) {
    $places = [$_GET, $_POST, $_REQUEST, is_object($json) ? (array) $json : []];
    $found = array_filter($places, fn ($place) => array_key_exists($name, $place));
    $watched[$name] = array_values(array_map(fn ($place) => $place[$name], $found));
}
$multipart = $kind === 'multipart';
$report = [
    'port' => (int) $_SERVER['REMOTE_PORT'],
    'method' => $method,
    'path' => rawurldecode(parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH) ?: ''),
    'query' => fields_of($_GET),
    'headers' => (object) array_change_key_case(getallheaders()),
    'length' => $multipart ? null : strlen($raw),
    'sha256' => $multipart ? null : hash('sha256', $raw),
    'kind' => $kind,
    'json' => $json,
    'form' => fields_of($_POST),
    'files' => files_of($_FILES),
    'watched' => $watched,
    'error' => $error,
];
$flags = JSON_INVALID_UTF8_SUBSTITUTE | JSON_PRESERVE_ZERO_FRACTION | JSON_UNESCAPED_SLASHES;
file_put_contents('php://stdout', json_encode($report, $flags, 1024) . "\n");
http_response_code($error === null ? 200 : 400);
echo 'read';
