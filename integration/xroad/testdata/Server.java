// SPDX-License-Identifier: Apache-2.0

import ee.ria.xroad.common.conf.InternalSSLKey;
import ee.ria.xroad.common.crypto.identifier.Providers;
import ee.ria.xroad.common.crypto.identifier.SignMechanism;
import ee.ria.xroad.common.identifier.ClientId;
import ee.ria.xroad.common.identifier.SecurityServerId;
import ee.ria.xroad.common.identifier.ServiceId;
import ee.ria.xroad.common.util.CryptoUtils;
import ee.ria.xroad.common.util.JobManager;

import com.google.protobuf.ByteString;
import io.grpc.stub.StreamObserver;
import org.bouncycastle.asn1.DERNull;
import org.bouncycastle.asn1.nist.NISTObjectIdentifiers;
import org.bouncycastle.asn1.x509.AlgorithmIdentifier;
import org.bouncycastle.asn1.x509.DigestInfo;
import org.bouncycastle.cert.jcajce.JcaX509CertificateHolder;
import org.bouncycastle.cert.ocsp.CertificateID;
import org.bouncycastle.cert.ocsp.OCSPReqBuilder;
import org.bouncycastle.cert.ocsp.OCSPResp;
import org.bouncycastle.operator.jcajce.JcaDigestCalculatorProviderBuilder;
import org.niis.xroad.common.rpc.server.RpcServer;
import org.niis.xroad.globalconf.GlobalConfProvider;
import org.niis.xroad.globalconf.impl.FileSystemGlobalConfSource;
import org.niis.xroad.globalconf.impl.GlobalConfImpl;
import org.niis.xroad.globalconf.impl.cert.CertChainFactory;
import org.niis.xroad.globalconf.impl.cert.CertHelper;
import org.niis.xroad.keyconf.KeyConfProvider;
import org.niis.xroad.keyconf.SigningInfo;
import org.niis.xroad.keyconf.dto.AuthKey;
import org.niis.xroad.proxy.core.opmonitoring.OpMonitoring;
import org.niis.xroad.proxy.core.clientproxy.AuthTrustVerifier;
import org.niis.xroad.proxy.core.clientproxy.ClientProxy;
import org.niis.xroad.proxy.core.conf.SigningCtxImpl;
import org.niis.xroad.proxy.core.messagelog.MessageLog;
import org.niis.xroad.proxy.core.serverproxy.ServerProxy;
import org.niis.xroad.proxy.core.signature.BatchSigner;
import org.niis.xroad.proxy.core.signedmessage.SignerSigningKey;
import org.niis.xroad.proxy.core.util.CertHashBasedOcspResponder;
import org.niis.xroad.proxy.core.util.CommonBeanProxy;
import org.niis.xroad.serverconf.IsAuthentication;
import org.niis.xroad.serverconf.ServerConfProvider;
import org.niis.xroad.serverconf.model.DescriptionType;
import org.niis.xroad.signer.client.SignerRpcClient;
import org.niis.xroad.signer.proto.GetTokenBatchSigningEnabledReq;
import org.niis.xroad.signer.proto.GetTokenBatchSigningEnabledResp;
import org.niis.xroad.signer.proto.KeyServiceGrpc;
import org.niis.xroad.signer.proto.SignReq;
import org.niis.xroad.signer.proto.SignResp;
import org.niis.xroad.signer.proto.TokenServiceGrpc;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.lang.reflect.Proxy;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.PrivateKey;
import java.security.Signature;
import java.security.cert.X509Certificate;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/**
 * X-Road's client proxy and server proxy with their OCSP responder, fed from a
 * folder: anchor.xml, auth.der and sign.der with their keys in auth.key and
 * sign.key (PKCS #8). A line on standard input says how to sign from then on:
 * "well", "badly" for signatures that are wrong, "slowly"; the answer is
 * "done". It ends when its standard input does.
 *
 * Arguments: folder, own address, instance, member class, member code, server
 * code, address of the information system.
 */
public final class Server {
    private static final int SIGNER_PORT = 5560;
    private static final int SIGNER_TIMEOUT = 60_000;
    private static final int SLOWLY = 200;

    private static GlobalConfProvider conf;
    private static volatile String manner = "well";

    public static void main(String[] args) {
        try {
            run(args);
            System.exit(0);
        } catch (Throwable e) { // other threads would go on
            e.printStackTrace();
            System.exit(1);
        }
    }

    private static void run(String[] args) throws Exception {
        Path dir = Path.of(args[0]);
        String address = args[1];
        Path jetty = Files.writeString(dir.resolve("jetty.xml"), """
                <?xml version="1.0"?>
                <!DOCTYPE Configure PUBLIC "-//Jetty//Configure//EN" "http://www.eclipse.org/jetty/configure_10_0.dtd">
                <Configure class="org.eclipse.jetty.server.Server"/>
                """);
        Path globalConf = Files.createDirectories(dir.resolve("globalconf"));
        Path temp = Files.createDirectories(dir.resolve("temp"));
        Map.of("connector-host", address, "server-listen-address", address, "ocsp-responder-listen-address", address,
                "client-http-port", "8080", "client-https-port", "8443",
                "jetty-clientproxy-configuration-file", jetty, "jetty-serverproxy-configuration-file", jetty,
                "jetty-ocsp-responder-configuration-file", jetty, "configuration-anchor-file", dir.resolve("anchor.xml"),
                "xroad-tls-ciphers", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384")
                .forEach((k, v) -> System.getProperties().putIfAbsent("xroad.proxy." + k, v.toString()));
        addOn("clientHandlers", "org.niis.xroad.proxy.core.clientproxy.MetadataHandler");
        addOn("serverServiceHandlers", "org.niis.xroad.proxy.core.serverproxy.MetadataServiceHandlerImpl");
        addOn("serverRestServiceHandlers", "org.niis.xroad.proxy.core.serverproxy.RestMetadataServiceHandlerImpl");
        System.setProperty("xroad.common.configuration-path", globalConf.toString());
        System.setProperty("xroad.common.temp-files-path", temp + "/");
        System.setProperty("xroad.common.grpc-internal-tls-enabled", "false");
        Providers.init();
        org.apache.xml.security.Init.init();

        var client = Class.forName("org.niis.xroad.confclient.core.ConfigurationClient");
        client.getMethod("execute").invoke(client.getConstructor(String.class).newInstance(globalConf.toString()));
        conf = new GlobalConfImpl(new FileSystemGlobalConfSource(globalConf.toString()));

        String instance = args[2];
        var serverId = SecurityServerId.Conf.create(instance, args[3], args[4], args[5]);
        X509Certificate auth = certificate(dir.resolve("auth.der"));
        X509Certificate sign = certificate(dir.resolve("sign.der"));
        PrivateKey authKey = key(dir.resolve("auth.key"), auth);
        PrivateKey signKey = key(dir.resolve("sign.key"), sign);

        KeyConfProvider keys = new Keys(new AuthKey(conf.getCertChain(instance, auth), authKey));
        var ssl = new InternalSSLKey(authKey, new X509Certificate[] {auth});
        ServerConfProvider server = serverConf(serverId, args[6], ssl);
        var chains = new CertChainFactory(conf);
        var helper = new CertHelper(conf);
        var owner = ClientId.Conf.create(instance, args[3], args[4]);
        RpcServer.newServer(address, SIGNER_PORT, b -> b.addService(new Signer(signKey)).addService(new Token())).afterPropertiesSet();
        var signer = new SignerRpcClient();
        signer.init(address, SIGNER_PORT, SIGNER_TIMEOUT);
        var signing = new SignerSigningKey(new BatchSigner(signer), "sign",
                signKey.getAlgorithm().equals("RSA") ? SignMechanism.CKM_RSA_PKCS : SignMechanism.CKM_ECDSA);
        var beans = new CommonBeanProxy(conf, server, keys,
                c -> new SigningCtxImpl(conf, keys, owner, signing, sign), chains, helper);
        OpMonitoring.init(server);
        MessageLog.init(new JobManager(), conf, server);
        new ServerProxy(beans).afterPropertiesSet();
        new ClientProxy(beans, conf, keys, server, new AuthTrustVerifier(keys, helper, chains)).afterPropertiesSet();
        new CertHashBasedOcspResponder(keys).afterPropertiesSet();
        System.out.println("\nready");
        var in = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = in.readLine()) != null;) {
            manner = line;
            System.out.println("\ndone");
        }
    }

    /** Has the proxies load a class of an add-on, if it is there. */
    private static void addOn(String property, String className) {
        try {
            Class.forName(className);
            System.setProperty("xroad.proxy." + property, className);
        } catch (ClassNotFoundException e) {
            System.err.println("without " + className);
        }
    }

    private static X509Certificate certificate(Path file) throws IOException {
        return CryptoUtils.readCertificate(Files.readAllBytes(file));
    }

    private static PrivateKey key(Path file, X509Certificate c) throws Exception {
        return KeyFactory.getInstance(c.getPublicKey().getAlgorithm()).generatePrivate(new PKCS8EncodedKeySpec(Files.readAllBytes(file)));
    }

    /**
     * Lets every registered client call the services "persons" (REST), "soap",
     * "down" and "closed" (WSDL) of any; nobody may call "private" (REST) and
     * "denied" (WSDL).
     */
    private static ServerConfProvider serverConf(SecurityServerId.Conf id, String url, InternalSSLKey ssl) {
        var rest = List.of("persons", "private");
        var wsdl = List.of("soap", "down", "closed", "denied");
        return (ServerConfProvider) Proxy.newProxyInstance(Server.class.getClassLoader(), new Class<?>[] {ServerConfProvider.class},
                (proxy, method, a) -> switch (method.getName()) {
                    case "getIdentifier" -> id;
                    case "serviceExists" -> rest.contains(code(a)) || wsdl.contains(code(a));
                    case "getServiceAddress" -> code(a).equals("down") ? url.replaceFirst(":[0-9]+$", ":1") : url + "/" + code(a);
                    case "getServiceTimeout" -> 60;
                    case "getDescriptionType" -> wsdl.contains(code(a)) ? DescriptionType.WSDL : DescriptionType.REST;
                    case "getServicesByDescriptionType", "getAllowedServicesByDescriptionType" ->
                            a[a.length - 1] == DescriptionType.WSDL ? List.of(ServiceId.Conf.create((ClientId) a[0], "soap")) : List.of();
                    case "getDisabledNotice" -> code(a).equals("closed") ? "closed for the winter" : null;
                    case "isQueryAllowed" -> !List.of("private", "denied").contains(((ServiceId) a[1]).getServiceCode());
                    case "getIsAuthentication" -> IsAuthentication.NOSSL;
                    case "getMemberStatus" -> "registered";
                    case "getSSLKey" -> ssl;
                    case "isAvailable" -> true;
                    case "isSslAuthentication" -> false;
                    case "getMaintenanceMode" -> new ServerConfProvider.MaintenanceMode(false, null);
                    case "hashCode" -> 1;
                    case "equals" -> proxy == a[0];
                    case "toString" -> "serverconf";
                    default -> List.class.isAssignableFrom(method.getReturnType()) ? List.of() : null;
                });
    }

    private static String code(Object[] arguments) {
        return ((ServiceId) arguments[0]).getServiceCode();
    }

    /** The keys, and OCSP responses from the responders of the global configuration. */
    private static final class Keys implements KeyConfProvider {
        private final AuthKey auth;
        private final Map<String, OCSPResp> responses = new ConcurrentHashMap<>();

        Keys(AuthKey auth) {
            this.auth = auth;
        }

        @Override
        public SigningInfo getSigningInfo(ClientId clientId) {
            throw new UnsupportedOperationException();
        }

        @Override
        public AuthKey getAuthKey() {
            return auth;
        }

        @Override
        public OCSPResp getOcspResponse(X509Certificate cert) throws IOException {
            try {
                if (!auth.certChain().getEndEntityCert().equals(cert) && conf.getServerId(cert) != null) {
                    return responses.get(CryptoUtils.calculateCertHexHash(cert)); // its owner has to show it
                }
                var issuer = conf.getCaCert(conf.getInstanceIdentifier(), cert);
                var digests = new JcaDigestCalculatorProviderBuilder().build();
                var request = new OCSPReqBuilder().addRequest(new CertificateID(digests.get(CertificateID.HASH_SHA1),
                        new JcaX509CertificateHolder(issuer), cert.getSerialNumber())).build();
                var url = conf.getOrderedOcspResponderAddresses(cert).get(0);
                var answer = HttpClient.newHttpClient().send(HttpRequest.newBuilder(URI.create(url))
                        .header("Content-Type", "application/ocsp-request")
                        .POST(HttpRequest.BodyPublishers.ofByteArray(request.getEncoded())).build(), HttpResponse.BodyHandlers.ofByteArray());
                return new OCSPResp(answer.body());
            } catch (IOException e) {
                throw e;
            } catch (Exception e) {
                throw new IOException(e);
            }
        }

        @Override
        public OCSPResp getOcspResponse(String hash) throws IOException {
            return getOcspResponse(auth.certChain().getEndEntityCert());
        }

        @Override
        public List<OCSPResp> getOcspResponses(List<X509Certificate> certs) throws IOException {
            var all = new ArrayList<OCSPResp>();
            for (var c : certs) {
                all.add(getOcspResponse(c));
            }
            return all;
        }

        @Override
        public void setOcspResponses(List<X509Certificate> certs, List<OCSPResp> got) throws IOException {
            for (int i = 0; i < certs.size(); i++) {
                try {
                    responses.put(CryptoUtils.calculateCertHexHash(certs.get(i)), got.get(i));
                } catch (java.security.cert.CertificateEncodingException e) {
                    throw new IOException(e);
                }
            }
        }
    }

    /** Signs as the signer does with a key in software. */
    private static final class Signer extends KeyServiceGrpc.KeyServiceImplBase {
        private final PrivateKey key;

        Signer(PrivateKey key) {
            this.key = key;
        }

        @Override
        public void sign(SignReq request, StreamObserver<SignResp> answer) {
            try {
                if (!request.getSignatureAlgorithmId().startsWith("SHA512with")) {
                    throw new IllegalArgumentException(request.getSignatureAlgorithmId());
                }
                byte[] digest = request.getDigest().toByteArray();
                if (manner.equals("slowly")) {
                    Thread.sleep(SLOWLY);
                } else if (manner.equals("badly")) {
                    digest[0]++;
                }
                if (key.getAlgorithm().equals("RSA")) {
                    digest = new DigestInfo(new AlgorithmIdentifier(NISTObjectIdentifiers.id_sha512, DERNull.INSTANCE), digest).getEncoded();
                }
                var s = Signature.getInstance(key.getAlgorithm().equals("RSA") ? "NONEwithRSA" : "NONEwithECDSA", "BC");
                s.initSign(key);
                s.update(digest);
                answer.onNext(SignResp.newBuilder().setSignature(ByteString.copyFrom(s.sign())).build());
                answer.onCompleted();
            } catch (Exception e) {
                answer.onError(e);
            }
        }
    }

    /** Allows to sign many messages at once. */
    private static final class Token extends TokenServiceGrpc.TokenServiceImplBase {
        @Override
        public void getTokenBatchSigningEnabled(GetTokenBatchSigningEnabledReq request, StreamObserver<GetTokenBatchSigningEnabledResp> answer) {
            answer.onNext(GetTokenBatchSigningEnabledResp.newBuilder().setBatchingSigningEnabled(true).build());
            answer.onCompleted();
        }
    }
}
