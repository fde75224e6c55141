(function () {
  var data = document.body.dataset;
  if (window.opener) window.opener.postMessage(JSON.parse(data.message), data.origin);
})();
